"""Packed bytes as the stream that was packed: how a file is packed, and one way for what can be wrong with it to be said."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from shards.errors import InputError

LONGEST_MARK = 10  # bytes at the start of a file that tell how it is packed
FAULTS = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError)
"""What the readers of packed files raise, whatever is wrong with one."""

_FREE = 1 << 28  # bytes that any packed file may unpack to
_RATIO = 200  # and above that, how many times its own size; text seldom reaches 30
_MARKS: Mapping[bytes, str] = {
    b"\x1f\x8b": "gzip",
    **{b"BZh%d" % level + block: "bzip2" for level in range(1, 10) for block in (b"1AY&SY", b"\x17rE8P\x90")},
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    **{bytes([0x50 + kind]) + b"\x2a\x4d\x18": "zstd" for kind in range(16)},  # a frame to skip: pzstd begins with one
    b"PK\3\4": "zip",
    b"PK\5\6": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x9d": "compress",
}


def packing_of(head: bytes) -> str | None:
    """How a file is packed, by its first bytes; None for one that is not, or in a way that nobody knows here."""
    return next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)


def _unzstd(path: Path) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")


OPENERS: Mapping[str, Callable[[Path], Any]] = {
    "gzip": gzip.open,
    "bzip2": bz2.open,
    "xz": lzma.open,
    "zstd": _unzstd,
}
"""How files that hold one stream are opened; zip archives hold several."""


def fault_of(error: Exception, *, where: str, packing: str) -> InputError:
    """Say what one of `FAULTS` means for the person who gave the file."""
    if isinstance(error, OSError) and error.errno is not None:
        return InputError(f"{where} cannot be read ({error.strerror}); check the disk, then run the same command again")
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, RuntimeError):  # a password, or a method that Python does not know
        return InputError(f"{where} cannot be unpacked here ({said}); unpack it and give the file that was in it")
    return InputError(f"{where} is cut or damaged, or no whole {packing} file ({said}); download it again")


class Unpacking(io.RawIOBase):
    """What is inside of a packed file, from its start to its end. Reading raises `InputError` for every fault of the file."""

    def __init__(self, stream: IO[bytes], *, where: str, packing: str, packed_bytes: int) -> None:
        """Args:
        stream: gives the unpacked bytes.
        where: the config key and the file, for messages.
        packing: the file's, for messages.
        packed_bytes: the file's size. What unpacks to hundreds of times as much is no text but a trap.
        """
        self._stream = stream
        self._where = where
        self._packing = packing
        self._left = max(_FREE, _RATIO * packed_bytes)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except FAULTS as fault:
            raise fault_of(fault, where=self._where, packing=self._packing) from fault
        self._left -= len(data)
        if self._left < 0:
            raise InputError(
                f"{self._where} unpacks to more than {_RATIO} times its size, as only a file does that is meant to fill the "
                "disk; if it is sound, unpack it and give the file that was in it"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


class SharedFile(io.RawIOBase):
    """A view of an open file with a place of its own, so that several may read it in turns; closing it leaves the file open."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: os.fstat(self._file.fileno()).st_size}
        self._at = starts[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._file.fileno(), len(buffer), self._at)
        self._at += len(data)
        buffer[: len(data)] = data
        return len(data)
