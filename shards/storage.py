"""Where a dataset lies: a local folder or any fsspec address, with the few operations that exactly-once writing needs.

Names are relative to the storage, with `/` between folders. A writer uses a *temporary* name that no other attempt shares,
and makes the finished bytes visible in one step; nobody ever reads a half-written file.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import BinaryIO, Literal

import xxhash

from shards.errors import DatasetError, OstrakaError

COPY_BYTES = 1 << 22
PUTS = 5  # attempts to write a small file while other jobs sweep


class Storage(ABC):
    """One dataset's place. Pickles to its address; opens connections lazily in each process."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    @property
    @abstractmethod
    def is_local(self) -> bool:
        """Whether names are files that the operating system can open."""

    @abstractmethod
    def path(self, name: str) -> str:
        """The full path or address of a name."""

    @abstractmethod
    def open_read(self, name: str) -> BinaryIO:
        """Open for reading. Raises `FileNotFoundError`."""

    @abstractmethod
    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Read up to `size` bytes from `offset`; fewer where the file ends before. Raises `FileNotFoundError`."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether a file of this name is visible."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Size in bytes. Raises `FileNotFoundError`."""

    @abstractmethod
    def _entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Base names of the files and of the folders directly in a folder; two empty lists where it does not exist."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write a small file unless the name is taken. The first caller wins and gets True; all others get False."""

    @abstractmethod
    def replace(self, name: str, data: bytes) -> None:
        """Write a small file in one step, over whatever was there."""

    @abstractmethod
    def open_write(self, temporary: str) -> BinaryIO:
        """Open a temporary name for writing."""

    @abstractmethod
    def publish(self, temporary: str, name: str, *, existing: Literal["keep", "replace"] = "keep") -> bool:
        """Make the bytes of a closed temporary durable and visible under `name`.

        Returns:
            True, and the temporary is gone; or False where `name` is taken and kept, and the temporary is still there.

        Raises:
            FileNotFoundError: the temporary is gone (swept after another attempt had finished the same work).
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file if it is there."""

    def abandon_uploads(self, *, older_than_s: float) -> int:
        """End the uploads that killed attempts have begun: they show no file, but object stores keep them, at a price.

        Args:
            older_than_s: leave younger ones alone, which a live attempt may be making.

        Returns:
            How many were ended.
        """
        return 0

    def read(self, name: str) -> bytes:
        """Read a whole file. Raises `FileNotFoundError`."""
        with self.open_read(name) as handle:
            return handle.read()

    def rewrite(self, name: str, write: Callable[[BinaryIO], None]) -> None:
        """Write a file of any size in one step, over whatever was there.

        Args:
            name: of the file.
            write: writes its bytes; called again where an identical job has swept the temporary meanwhile.
        """
        for attempt in range(1, PUTS + 1):
            temporary = temporary_name(name)
            with self.open_write(temporary) as handle:
                write(handle)
            try:
                self.publish(temporary, name, existing="replace")
                return
            except FileNotFoundError:
                if attempt == PUTS:
                    raise

    def list(self, folder: str) -> Sequence[str]:
        """Sorted names of the files directly in a folder, temporaries left out: `list("commits")` → `["commits/1f.json", …]`."""
        return [f"{folder}/{base}" for base in sorted(self._entries(folder)[0]) if not is_temporary(base)]

    def folders(self, folder: str) -> Sequence[str]:
        """Sorted names of the folders directly in a folder."""
        return [f"{folder}/{base}" for base in sorted(self._entries(folder)[1])]

    def temporaries(self, folder: str) -> Sequence[str]:
        """Sorted names of the temporaries that live or killed attempts have in a folder."""
        return [
            f"{folder}/{base}" if folder else base for base in sorted(self._entries(folder)[0]) if is_temporary(base)
        ]

    def checksum(self, name: str) -> str:
        """The xxh3-64 of a file in 16 hex digits, read in pieces. Raises `FileNotFoundError`."""
        state = xxhash.xxh3_64()
        with self.open_read(name) as handle:
            while piece := handle.read(COPY_BYTES):
                state.update(piece)
        return state.hexdigest()

    def ensure_writable(self) -> None:
        """Find out before the work starts that its result cannot be stored.

        Raises:
            DatasetError: nothing can be written here.
        """
        probe = temporary_name("write-probe")
        try:
            with self.open_write(probe) as handle:
                handle.write(b"\0")
            self.remove(probe)
        except OstrakaError:
            raise
        except Exception as problem:  # libraries of stores raise what they like, such as boto's own missing credentials
            why = (problem.strerror if isinstance(problem, OSError) else None) or problem
            raise DatasetError(
                f"cannot write to {self.url} ({why}); choose another `output`, or mend its permissions or your credentials"
            ) from problem


def temporary_name(name: str) -> str:
    """A name beside `name` that no other attempt will ever choose; `list` does not show it."""
    folder, _, base = name.rpartition("/")
    hidden = f".{base}.{uuid.uuid4().hex[:16]}.tmp"
    return f"{folder}/{hidden}" if folder else hidden


def is_temporary(name: str) -> bool:
    """Whether a name was made by `temporary_name`."""
    base = name.rpartition("/")[2]
    return base.startswith(".") and base.endswith(".tmp")
