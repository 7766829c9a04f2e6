"""Walking a tar that somebody else wrote: every member with its place, and every loss by name.

Usual readers take a damaged header for the end of the archive and drop what follows without a word. Here the walk says what broke
and where, goes on at the next sound header, and a tar that was cut off is told from one that ended.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import xxhash

from shards.codec import BLOCK

_PIECE = 1 << 20
_LONGEST_EXTENSION = 1 << 20  # bytes of a long name or a PAX header; more is damage
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TarMember:
    """One regular file of a tar, or a link, which is named and never followed."""

    name: str
    offset: int  # of the data
    size: int
    is_link: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A stretch of the tar that cannot be read."""

    offset: int
    what: str


class TarWalk:
    """One pass over a tar.

    Attributes:
        layout: after the walk, the xxh3 over every member's name, place and size.
        xxh3: after the walk, the xxh3 of the whole file; None where the walk skips what nobody reads.
    """

    def __init__(self, tar: BinaryIO, *, size: int, whole: bool) -> None:
        """Args:
        tar: open at its start; seekable unless `whole`.
        size: bytes of the file.
        whole: read every byte and hash the file; otherwise skip the data that is not asked for.
        """
        self._tar = tar
        self._size = size
        self._whole = whole
        self._place = 0
        self._file_hash = xxhash.xxh3_64()
        self._layout_hash = xxhash.xxh3_64()
        self._unread: TarMember | None = None

    @property
    def layout(self) -> str:
        return self._layout_hash.hexdigest()

    @property
    def xxh3(self) -> str | None:
        return self._file_hash.hexdigest() if self._whole else None

    def data(self, member: TarMember) -> bytes:
        """The bytes of the member that `walk` has just yielded; asked for once, before the walk goes on."""
        assert member is self._unread
        self._unread = None
        return self._read(member.size)

    def walk(self) -> Iterator[TarMember | Loss]:
        """Yield every regular file and link in order, and every loss where it is met; directories and devices are passed over."""
        while True:
            start = self._place
            try:
                member = self._next()
            except _BrokenTarError as problem:
                yield Loss(offset=start, what=str(problem))
                if not self._resynchronise():
                    break
                continue
            if member is None:
                break
            end = member.offset + member.size
            if end > self._size:
                lost = f"the tar ends inside {member.name!r}, after {self._size - member.offset:,} of {member.size:,} bytes"
                yield Loss(offset=member.offset, what=lost)
                break
            named = f"{member.name}\0{member.offset}\0{member.size}\n"
            self._layout_hash.update(named.encode("utf-8", "surrogateescape"))
            self._unread = member
            yield member
            self._skip_to(end + -member.size % BLOCK)
        self._skip_to(self._size)

    def _next(self) -> TarMember | None:
        """The next file or link; None at the archive's end mark."""
        long_name: str | None = None
        attributes: dict[str, str] = {}
        while True:
            if self._place >= self._size:
                raise _BrokenTarError("the tar ends without the two empty blocks that close an archive: it was cut off")
            block = self._read(BLOCK)
            if len(block) < BLOCK:
                raise _BrokenTarError("the tar ends inside a member's header")
            if not block.strip(b"\0"):
                return None
            header = _parse(block)
            if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE):
                text = self._extension(header)
                if header.type == tarfile.GNUTYPE_LONGNAME:
                    long_name = text.rstrip(b"\0").decode("utf-8", "surrogateescape")
                elif header.type == tarfile.XHDTYPE:
                    attributes = _pax(text)
                continue
            size = _size(attributes, header.size)
            if header.type in _REGULAR or header.type in _LINKS:
                is_link = header.type in _LINKS
                name = attributes.get("path") or long_name or header.name
                return TarMember(name=name, offset=self._place, size=0 if is_link else size, is_link=is_link)
            if header.type != tarfile.DIRTYPE:
                self._skip_to(min(self._size, self._place + size + -size % BLOCK))
            long_name, attributes = None, {}

    def _extension(self, header: tarfile.TarInfo) -> bytes:
        if header.size > _LONGEST_EXTENSION:
            raise _BrokenTarError(f"a long name of {header.size:,} bytes")
        data = self._read(header.size + -header.size % BLOCK)
        if len(data) < header.size:
            raise _BrokenTarError("the tar ends inside a member's long name")
        return data[: header.size]

    def _resynchronise(self) -> bool:
        """Go to the next block that is a sound header; False where there is none."""
        while self._place < self._size:
            block = self._read(BLOCK)
            if len(block) == BLOCK and block[257:262] == b"ustar":
                try:
                    _parse(block)
                except _BrokenTarError:
                    continue
                self._pushed = block
                return True
        return False

    _pushed: bytes | None = None  # a header that was read while looking for it

    def _read(self, size: int) -> bytes:
        if self._pushed is not None:
            block, self._pushed = self._pushed, None
            return block
        data = self._tar.read(size)
        self._place += len(data)
        if self._whole:
            self._file_hash.update(data)
        return data

    def _skip_to(self, place: int) -> None:
        self._unread = None
        if not self._whole:
            self._place = min(place, self._size)
            self._tar.seek(self._place)
            return
        while self._place < place and self._read(min(_PIECE, place - self._place)):
            pass


class _BrokenTarError(ValueError):
    """What follows cannot be read as a member."""


def _parse(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as problem:
        raise _BrokenTarError(f"a damaged header ({problem})") from problem


def _size(attributes: dict[str, str], stated: int) -> int:
    text = attributes.get("size")
    if text is None:
        return stated
    if not text.isdecimal():
        raise _BrokenTarError(f"a PAX header with the size {text!r}")
    return int(text)


def _pax(data: bytes) -> dict[str, str]:
    """The `length key=value` lines of a PAX header."""
    found: dict[str, str] = {}
    while data:
        digits, space, _ = data.partition(b" ")
        if not space or not digits.isdigit() or not len(digits) + 2 < int(digits) <= len(data):
            raise _BrokenTarError("a PAX header that is no list of `length key=value` lines")
        key, _, value = data[len(digits) + 1 : int(digits) - 1].partition(b"=")
        found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        data = data[int(digits) :]
    return found
