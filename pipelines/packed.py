"""Raw files as people keep them: plain, or packed by gzip, bzip2, xz, zstd or zip; either way the bytes inside come as a stream.

How a file is packed is told by its first bytes, not by its name. A zip with one file in it stands for that file; of one with
several, the path goes on into it, as into a folder: `annotations.zip/annotations/captions_val2017.json`.
"""

from __future__ import annotations

import glob
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path, PurePath
from typing import IO, BinaryIO

from pipelines.unpacking import FAULTS, LONGEST_MARK, OPENERS, SharedFile, Unpacking, fault_of, packing_of
from shards.errors import InputError, OstrakaError

_ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".zip")
_BUFFER = 1 << 18
_LONGEST_LINE = 1 << 30  # bytes; a cell may hold a clip in base64
_UNPACKED_FILES = 4  # kept unpacked at a time by a process that reads out of their middle
_LISTED = 8  # names of files in a zip that a message gives
_MACOS = "__MACOSX/"  # where macOS packs what belongs to no file


def plain_name(path: str) -> str:
    """The last part of a path as it was before the file was packed: `captions.json` of `data/captions.json.gz`."""
    name = PurePath(path).name
    return next((name[: -len(ending)] for ending in _ENDINGS if name.lower().endswith(ending)), name)


def folder_of(path: str) -> Path:
    """The folder in which a raw file lies, or the zip that it is in."""
    return _archive_and_member(path)[0].parent


def located(path: str) -> str:
    """The absolute path of a raw file, `~` spelt out; of a zip with one file inside, of that file. Addresses stay as they are."""
    if "://" in path:
        return path
    absolute = os.path.abspath(os.path.expanduser(path))
    if not os.path.isfile(absolute) or not zipfile.is_zipfile(absolute):
        return absolute
    with zipfile.ZipFile(absolute) as archive:
        names = _names(archive)
    return f"{absolute}/{names[0]}" if len(names) == 1 else absolute


def matching(pattern: str) -> list[str]:
    """The paths that a pattern matches, in any depth for `**`; a folder that is there by its very name is no pattern."""
    parts = Path(pattern).parts
    for known in range(len(parts) - 1, 0, -1):
        folder = Path(*parts[:known])
        if folder.is_dir():
            pattern = os.path.join(glob.escape(str(folder)), *parts[known:])
            break
    return glob.glob(pattern, recursive=True)


def is_there(path: str) -> bool:
    """Whether a path is a file, or leads into a zip that is one."""
    return os.path.isfile(_archive_and_member(path)[0])


def open_raw(path: str, *, key: str) -> BinaryIO:
    """Open a raw file to be read from its start to its end; what is packed is unpacked on the way, in constant memory.

    Args:
        path: the file as the user named it.
        key: the config key that named it, for messages.

    Raises:
        InputError: it cannot be opened, or is packed in a way that is not read here. So does reading: where the file is
            cut or damaged, its checksum is wrong, or it unpacks to so much that it must be meant to do harm.
    """
    archive, member = _archive_and_member(path)
    plain, packing = _opened(archive, key=key)
    if packing is None and member is None:
        return plain
    plain.close()
    if packing == "zip":
        stream, packed_bytes = _open_member(archive, member, key=key)
    elif member is not None:
        raise InputError(f"{key}: {archive.absolute()} is no zip, so no {member} is in it; give the path of a file")
    elif (opener := OPENERS.get(str(packing))) is not None:
        stream, packed_bytes = opener(archive), archive.stat().st_size
    else:
        raise InputError(
            f"{key}: {archive.absolute()} is compressed ({packing}), which is not read here; unpack it and give the file "
            "that was in it"
        )
    where = f"{key}: {Path(path).absolute()}"
    unpacking = Unpacking(stream, where=where, packing=str(packing), packed_bytes=packed_bytes)
    return io.BufferedReader(unpacking, _BUFFER)


def open_seekable(path: str, *, key: str) -> BinaryIO:
    """Open a raw file to be read from any place of it; a packed one is first unpacked into a temporary file, once a process.

    Raises:
        InputError: as `open_raw`.
        OstrakaError: there is no room to unpack it.
    """
    archive, member = _archive_and_member(path)
    plain, packing = _opened(archive, key=key)
    if packing is None and member is None:
        return plain
    with plain:
        changed_ns = os.fstat(plain.fileno()).st_mtime_ns
    return io.BufferedReader(SharedFile(_unpacked(path, changed_ns, key)), _BUFFER)


def read_slice(path: str, *, offset: int, size: int, key: str) -> bytes:
    """Read some bytes of a raw file, wherever they are. Raises as `open_seekable`."""
    with open_seekable(path, key=key) as file:
        file.seek(offset)
        return file.read(size)


def is_packed(path: str, *, key: str) -> bool:
    """Whether a raw file has to be unpacked. Raises `InputError` where it cannot be opened."""
    archive, member = _archive_and_member(path)
    plain, packing = _opened(archive, key=key)
    plain.close()
    return packing is not None or member is not None


def size_of(path: str, *, key: str) -> int:
    """The size of a raw file in bytes, unpacked, in as much time as unpacking takes. Raises as `open_raw`."""
    with open_raw(path, key=key) as file:
        if file.seekable():
            return file.seek(0, os.SEEK_END)
        return sum(map(len, iter(partial(file.read, _BUFFER), b"")))


def lines_of(file: BinaryIO, *, path: str, key: str) -> Iterator[bytes]:
    """The lines, with their ends, of what `open_raw` opened. Raises `InputError` for one that is too long to be a line of text."""
    for number, line in enumerate(iter(partial(file.readline, _LONGEST_LINE), b""), start=1):
        if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
            raise InputError(
                f"{key}: {path}, line {number} is longer than {_LONGEST_LINE >> 30} GiB, so this is hardly a text with "
                "lines; give the right file"
            )
        if number == 1 and not line.endswith(b"\n") and b"\r" in line[:-1]:
            raise InputError(f"{key}: {path} has the line ends of old Macs (CR alone); write it with LF or CRLF")
        yield line


def _archive_and_member(path: str) -> tuple[Path, str | None]:
    """The file on disk, and what of it is meant where the path goes on behind it."""
    file = Path(path)
    if not os.path.exists(path):
        archive = next((parent for parent in file.parents if os.path.exists(parent)), file)
        if archive.is_file():
            return archive, file.relative_to(archive).as_posix()
    return file, None


def _opened(file: Path, *, key: str) -> tuple[BinaryIO, str | None]:
    """Open a file on disk, and look how it is packed."""
    try:
        opened = file.open("rb")
    except OSError as error:
        raise InputError(
            f"{key}: {file.absolute()} cannot be read ({error.strerror}); check its permissions"
        ) from error
    packing = packing_of(opened.read(LONGEST_MARK))
    opened.seek(0)
    return opened, packing


def _names(archive: zipfile.ZipFile) -> list[str]:
    """The files in a zip, in its order."""
    return [
        name
        for name in archive.namelist()
        if not name.endswith("/") and not name.startswith(_MACOS) and PurePath(name).name != ".DS_Store"
    ]


def _open_member(path: Path, member: str | None, *, key: str) -> tuple[IO[bytes], int]:
    """Open one file of a zip; returns it and its size inside the zip."""
    try:
        with zipfile.ZipFile(path) as archive:  # stays open for as long as the file in it
            names = _names(archive)
            meant = member or (names[0] if len(names) == 1 else "")
            if meant in names:
                return archive.open(meant), archive.getinfo(meant).compress_size
    except FAULTS as fault:
        raise fault_of(fault, where=f"{key}: {path.absolute()}", packing="zip") from fault
    listed = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
    said = f"has no {member} in it" if member else f"has {len(names)} files in it"
    raise InputError(
        f"{key}: {path.absolute()} {said} (it holds: {listed or 'nothing'}); name one as {path}/{names[0] if names else 'FILE'}"
    )


@lru_cache(maxsize=_UNPACKED_FILES)
def _unpacked(path: str, changed_ns: int, key: str) -> IO[bytes]:
    """Unpack a file for as long as the process lives, or reads from few others; the copy has no name and outlives nobody."""
    copy = tempfile.TemporaryFile(prefix="ostraka-unpacked-")  # noqa: SIM115 (it lives as long as the cache)
    with open_raw(path, key=key) as packed:
        try:
            shutil.copyfileobj(packed, copy, _BUFFER)
            copy.flush()
        except OSError as error:
            raise OstrakaError(
                f"{key}: {path} has to be unpacked to be read from its middle, and {tempfile.gettempdir()} cannot take it "
                f"({error.strerror}); free some space there, set TMPDIR to a larger disk, or unpack the file yourself"
            ) from error
    return copy
