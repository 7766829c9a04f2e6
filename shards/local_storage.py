"""A dataset in a folder: links and renames make finished bytes visible in one step."""

from __future__ import annotations

import os
from typing import BinaryIO, Literal

from shards.storage import PUTS, Storage, temporary_name

_BUFFER_BYTES = 1 << 16  # pictures are larger and go past it: copying them costs more than a write


class LocalStorage(Storage):
    """A folder of this machine or of a shared file system."""

    def __init__(self, root: str) -> None:
        super().__init__(os.path.abspath(os.path.expanduser(root)))

    @property
    def is_local(self) -> bool:
        return True

    def path(self, name: str) -> str:
        return os.path.join(self.url, name)

    def open_read(self, name: str) -> BinaryIO:
        return open(self.path(name), "rb")

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        with open(self.path(name), "rb", buffering=0) as handle:
            return os.pread(handle.fileno(), size, offset)

    def exists(self, name: str) -> bool:
        return os.path.isfile(self.path(name))

    def size(self, name: str) -> int:
        return os.path.getsize(self.path(name))

    def _entries(self, folder: str) -> tuple[list[str], list[str]]:
        files: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(self.path(folder)) as entries:
                for entry in entries:
                    (folders if entry.is_dir() else files).append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        return files, folders

    def create(self, name: str, data: bytes) -> bool:
        return self._put(name, data, existing="keep")

    def replace(self, name: str, data: bytes) -> None:
        self._put(name, data, existing="replace")

    def _put(self, name: str, data: bytes, *, existing: Literal["keep", "replace"]) -> bool:
        """Write a small file by way of a temporary; True where it is now in its place."""
        for attempt in range(1, PUTS + 1):
            temporary = temporary_name(name)
            with self.open_write(temporary) as handle:
                handle.write(data)
            try:
                if self.publish(temporary, name, existing=existing):
                    return True
                self.remove(temporary)
                return False
            except FileNotFoundError:  # an identical job has merged in this moment, and swept the temporary
                if attempt == PUTS:
                    raise
        raise AssertionError(f"{name}: no attempt was made")

    def open_write(self, temporary: str) -> BinaryIO:
        path = self.path(temporary)
        try:
            return open(path, "wb", buffering=_BUFFER_BYTES)
        except FileNotFoundError:
            self._make_folder(os.path.dirname(path))
            return open(path, "wb", buffering=_BUFFER_BYTES)

    def publish(self, temporary: str, name: str, *, existing: Literal["keep", "replace"] = "keep") -> bool:
        source, target = self.path(temporary), self.path(name)
        _sync(source)  # the bytes must be on disk before their name is
        if existing == "replace":
            os.replace(source, target)
        else:
            try:
                os.link(source, target)
            except FileExistsError:
                return False
            except FileNotFoundError:
                raise
            except OSError:
                # Some shared file systems have no hard links. Looking first and renaming then leaves a gap in which two
                # attempts may both win; the bytes of a unit do not depend on the attempt, so the second one changes nothing.
                if os.path.exists(target):
                    return False
                os.replace(source, target)
            else:
                os.unlink(source)
        _sync(os.path.dirname(target))
        return True

    def remove(self, name: str) -> None:
        try:
            os.unlink(self.path(name))
        except FileNotFoundError:
            return

    def _make_folder(self, folder: str) -> None:
        if os.path.isdir(folder):
            return
        parent = os.path.dirname(folder)
        self._make_folder(parent)
        try:
            os.mkdir(folder)
        except FileExistsError:
            return  # another worker was quicker
        _sync(parent)


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
