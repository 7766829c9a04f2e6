"""A store with faults, for the tests of several rooms: a folder behind an fsspec address, which fails, hangs or lies as told."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

PROTOCOL = "faulty"


@dataclass
class Faults:
    """What goes wrong, and what was asked for. Forked workers have their own."""

    failing_share: float = 0.0
    hanging: bool = False
    delay_s: float = 0.0
    lying: bool = False  # ranges come cut short, without an error
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    failed: int = 0
    asked: list[tuple[str, int | None, int | None]] = field(default_factory=list)

    def request(self, path: str, start: int | None = None, end: int | None = None) -> None:
        self.asked.append((os.path.basename(path), start, end))
        time.sleep(self.delay_s)
        if self.hanging:
            threading.Event().wait()
        if self.rng.random() < self.failing_share:
            self.failed += 1
            raise ConnectionResetError(104, f"request {len(self.asked)} was lost")

    def ranges(self) -> Counter[str]:
        """How many ranges of each file were asked for."""
        return Counter(name for name, start, _ in self.asked if start is not None)


FAULTS = Faults()


class FaultyFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Reading only; `faulty:///folder` is `/folder`."""

    protocol = PROTOCOL

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.folder = LocalFileSystem()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix(f"{PROTOCOL}://").strip("/")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        FAULTS.request(path, start, end)
        data = bytes(self.folder.cat_file(self._strip_protocol(path), start=start, end=end))
        return data[: len(data) // 2] if FAULTS.lying and start is not None else data

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        FAULTS.request(path)
        return dict(self.folder.info(self._strip_protocol(path)))

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        FAULTS.request(path)
        return list(self.folder.ls(self._strip_protocol(path), detail=detail))


@pytest.fixture
def faults() -> Iterator[Faults]:
    """A store without a fault yet; addresses begin with `faulty://`."""
    fsspec.register_implementation(PROTOCOL, FaultyFileSystem, clobber=True)
    FAULTS.__init__()  # type: ignore[misc]  # the file system knows this object
    yield FAULTS
    FAULTS.__init__()  # type: ignore[misc]
