"""What tests of several rooms share: one Ray for the whole session, and the folder of real files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# Machines are shared: how long an example takes says nothing about the code.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real files: $OSTRAKA_DATA, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("OSTRAKA_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real files at {folder}; set OSTRAKA_DATA")
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """An own Ray with two workers; whatever asks for a `RayExecutor` in this process uses it."""
    from jobs.ray_executor import attached

    with ExitStack() as stack:
        stack.enter_context(attached(None, workers=2, object_store_bytes=150 * 1024 * 1024))
        yield
