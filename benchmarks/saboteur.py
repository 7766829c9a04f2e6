"""A process that dies of SIGKILL at a chosen operation on its disk: before it, after it, or half way through a write."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, BinaryIO, Literal, cast

from shards.local_storage import LocalStorage

Moment = Literal["before", "during", "after"]

_CALLS = ("fsync", "link", "replace", "unlink", "mkdir")


class Saboteur:
    """Counts what this process does to its disk, and kills it at one of these operations.

    It changes the process that it is made in for good, so make it in a process of its own.
    """

    def __init__(self, *, at: int | None = None, moment: Moment = "before") -> None:
        """Args:
        at: the operation to die at, the first is 1; None only counts.
        moment: before it, after it, or with half of what a write should write.
        """
        self.operations = 0
        self._at = at
        self._moment = moment
        for name in _CALLS:
            setattr(os, name, self._wrapped(getattr(os, name)))
        open_write = LocalStorage.open_write

        def watched(storage: LocalStorage, temporary: str) -> BinaryIO:
            return cast(BinaryIO, _WatchedFile(open_write(storage, temporary), self))

        setattr(LocalStorage, "open_write", watched)  # noqa: B010 - an assignment is no method to mypy

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            due = self.is_due()
            if due and self._moment != "after":
                self.kill()
            result = call(*arguments, **keywords)
            if due:
                self.kill()
            return result

        return wrapped

    def is_due(self) -> bool:
        """Count one operation; whether it is the one."""
        self.operations += 1
        return self.operations == self._at

    def write(self, handle: BinaryIO, data: bytes) -> int:
        """Write to a file, unless this is the operation to die at."""
        due = self.is_due()
        if due and self._moment != "after":
            handle.write(data[: len(data) // 2 if self._moment == "during" else 0])
            handle.flush()
            self.kill()
        written = handle.write(data)
        if due:
            handle.flush()
            self.kill()
        return written

    @staticmethod
    def kill() -> None:
        """End this process as the kernel would: no handler runs, nothing is flushed."""
        os.kill(os.getpid(), signal.SIGKILL)


class _WatchedFile:
    """A file whose writes are counted."""

    def __init__(self, handle: BinaryIO, saboteur: Saboteur) -> None:
        self._handle = handle
        self._saboteur = saboteur

    def write(self, data: bytes) -> int:
        return self._saboteur.write(self._handle, data)

    def __enter__(self) -> _WatchedFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)
