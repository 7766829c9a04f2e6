"""A Ray that is already running, and our command line as a user would start it against that Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import ROOT, TIMEOUT_S
from jobs.ray_executor import attached

OBJECT_STORE_BYTES = 300 << 20


@contextmanager
def warm_ray(*, processors: int) -> Iterator[str]:
    """Start a Ray with so many processors; gives its address. Child processes inherit what they need to attach."""
    with attached(None, workers=processors, object_store_bytes=OBJECT_STORE_BYTES):
        import ray

        yield ray.get_runtime_context().gcs_address


def convert_on(address: str, folder: Path, output: Path, overrides: Sequence[str]) -> tuple[float, float]:
    """Run `python -m jobs shards … executor=ray` on the photos of a folder.

    Returns:
        Wall seconds from the start of the command to the first commit record, and to its end.
    """
    command = [
        sys.executable, "-m", "jobs", "shards", "source.kind=flickr_captions", f"source.annotations={folder / 'captions.token'}",
        f"source.media={folder / 'photos'}", "source.split=all", f"output={output}", "executor=ray", f"address={address}",
        *overrides,
    ]  # fmt: skip
    started = time.time()
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip
    ended = time.time()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    first = min(path.stat().st_mtime for path in (output / "commits").glob("*.json"))
    return first - started, ended - started
