"""Which container holds a clip or a sound, told by its bytes alone, and whether the file is as long as it says itself.

The name of a file is not believed, and the container is named to the decoder rather than guessed by it: a guess could take
a raw file for a playlist, and follow it to other files and to the network.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shards.errors import MissingLibraryError
from shards.records import MediaProblem

_QUICKTIME_BOXES = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})  # a QuickTime file without `ftyp`
_FORMAT_OF_ISO = "mov"  # FFmpeg has one reader for all of MP4, M4A, MOV and 3GP
_EBML, _SEGMENT, _DOC_TYPE = 0x1A45DFA3, 0x18538067, 0x4282
_OGG_END_OF_STREAM = 4
_OGG_HEADER = 27  # bytes of an Ogg page before its segment table
_RIFF_UNKNOWN = 0x7FFF_F000  # and above: stands for "as much as there is"
_TS_PACKET = 188  # bytes of an MPEG transport packet; each starts with 0x47


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A kind of file: the name FFmpeg has for it, and the tar extension under which others look for it."""

    format: str
    extension: str


def container_of(data: bytes) -> Container:
    """Tell a clip or a sound by its first bytes.

    Raises:
        MediaProblem: there are no bytes, or they are no container that is known here.
    """
    if not data:
        raise MediaProblem("zero_size", "the file is empty")
    found = _iso(data) or _riff(data) or _matroska(data) or _other(data)
    if found is None:
        raise MediaProblem(
            "not_media", f"no clip and no sound of a kind that is read here; it starts with {data[:16]!r}"
        )
    return found


def check_whole(data: bytes, container: Container) -> None:
    """Compare a file with the size that its container states, if any. Raises `MediaProblem` when it breaks off."""
    missing = 0
    if container.format == _FORMAT_OF_ISO:
        missing = max((end for _, _, end in _boxes(data)), default=0) - len(data)
        if not missing and not any(name == b"moov" for name, _, _ in _boxes(data)):
            raise MediaProblem("truncated_media", f"its table of contents is missing, {len(data)} bytes")
    elif container.format in {"avi", "wav"}:
        missing = _riff_end(data) - len(data)
    elif container.format == "matroska":
        missing = _matroska_end(data) - len(data)
    elif container.format == "mpegts":
        missing = -len(data) % _TS_PACKET
    elif container.format == "ogg" and not _ogg_ends(data):
        raise MediaProblem("truncated_media", f"its last page is not marked as the end, {len(data)} bytes")
    if missing > 0:
        raise MediaProblem("truncated_media", f"{len(data)} bytes are there, {missing} are missing")


def open_container(data: bytes, container: Container) -> Any:
    """Open with PyAV as that container and nothing else; use it as a context manager.

    Raises:
        MediaProblem: the header is broken.
        MissingLibraryError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as problem:
        raise MissingLibraryError("clips and sounds need PyAV: install ostraka[video]") from problem
    try:
        return av.open(io.BytesIO(data), format=container.format)
    except (av.FFmpegError, ValueError) as problem:
        raise MediaProblem(
            "truncated_media", f"a {container.extension} file whose header cannot be read: {problem}"
        ) from problem


def _iso(data: bytes) -> Container | None:
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        extension = "mov" if brand == b"qt  " else "m4a" if brand[:3] in {b"M4A", b"M4B"} else "mp4"
        return Container(format=_FORMAT_OF_ISO, extension="3gp" if brand[:2] == b"3g" else extension)
    if data[4:8] in _QUICKTIME_BOXES:
        return Container(format=_FORMAT_OF_ISO, extension="mov")
    return None


def _riff(data: bytes) -> Container | None:
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return Container(format="avi", extension="avi")
    if data[:4] in {b"RIFF", b"RF64"} and data[8:12] == b"WAVE":
        return Container(format="wav", extension="wav")
    return None


def _matroska(data: bytes) -> Container | None:
    if data[:4] != _EBML.to_bytes(4, "big"):
        return None
    at, end = 4, min(len(data), 512)
    size, at = _ebml_number(data, at, keep_marker=False)
    end = min(end, at + size)
    while at < end:
        name, at = _ebml_number(data, at, keep_marker=True)
        size, at = _ebml_number(data, at, keep_marker=False)
        if name == _DOC_TYPE:
            is_webm = data[at : at + size].rstrip(b"\0") == b"webm"
            return Container(format="matroska", extension="webm" if is_webm else "mkv")
        at += size
    return Container(format="matroska", extension="mkv")


def _other(data: bytes) -> Container | None:
    for signature, format, extension in (
        (b"OggS", "ogg", "ogg"),
        (b"fLaC", "flac", "flac"),
        (b"GIF8", "gif", "gif"),
        (b"FLV\1", "flv", "flv"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf", "wmv"),
        (b"\0\0\1\xba", "mpeg", "mpg"),
    ):
        if data.startswith(signature):
            return Container(format=format, extension=extension)
    if len(data) > 2 * _TS_PACKET and all(data[place * _TS_PACKET] == 0x47 for place in range(3)):
        return Container(format="mpegts", extension="ts")
    start = after_id3(data)
    if data[start : start + 4] == b"fLaC":
        return Container(format="flac", extension="flac")
    head = data[start : start + 2]
    if len(head) == 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:  # ADTS: layer bits are 0
        return Container(format="aac", extension="aac")
    if start or (len(head) == 2 and head[0] == 0xFF and head[1] & 0xE6 in {0xE2, 0xE4, 0xE6}):
        return Container(format="mp3", extension="mp3")
    return None


def after_id3(data: bytes) -> int:
    """Where the sound starts behind an ID3v2 tag; 0 without one."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = 0
    for digit in data[6:10]:  # four digits to the base of 128
        size = size << 7 | digit & 0x7F
    return 10 + size + (10 if data[5] & 0x10 else 0)


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The top-level boxes of an ISO file: name, start and end; the last may end behind the data."""
    at = 0
    while at + 8 <= len(data):
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        end = len(data) if size == 0 else at + size
        if (size != 0 and size < 8) or not name.strip(b"\0"):
            return  # zeros or junk behind the last box, which players ignore
        yield name, at, end
        at = end


def _riff_end(data: bytes) -> int:
    """Where the last chunk of a RIFF file should end; 0 where it does not know, as a recorder leaves it that wrote to a pipe."""
    stated = int.from_bytes(data[4:8], "little")
    if data[:4] == b"RF64" or stated == 0 or stated >= _RIFF_UNKNOWN:
        return 0
    # A pad byte of the last chunk is often counted and not written.
    return stated + 8 - 1 if stated + 8 - len(data) == 1 else stated + 8


def _matroska_end(data: bytes) -> int:
    """Where the segment of a Matroska file should end; 0 where it says that it does not know."""
    size, at = _ebml_number(data, 4, keep_marker=False)
    at += size
    while at + 2 < len(data):
        name, at = _ebml_number(data, at, keep_marker=True)
        first = data[at] if at < len(data) else 0
        size, start = _ebml_number(data, at, keep_marker=False)
        if name == _SEGMENT:
            unknown = (1 << 7 * (start - at)) - 1
            return 0 if not first or size == unknown else start + size
        at = start + size
    return 0


def _ebml_number(data: bytes, at: int, *, keep_marker: bool) -> tuple[int, int]:
    """A number of variable length, and where it ends; past the end of the data it is 0."""
    first = data[at] if at < len(data) else 0
    length = 9 - first.bit_length() if first else 8
    value = int.from_bytes(data[at : at + length], "big")
    return (value if keep_marker else value & (1 << 7 * length) - 1), at + length


def _ogg_ends(data: bytes) -> bool:
    """Whether the last page of an Ogg file is whole and marked as the last of its stream."""
    at = data.rfind(b"OggS")
    if at < 0 or at + _OGG_HEADER > len(data):
        return False
    segments = data[at + 26]
    sizes = data[at + _OGG_HEADER : at + _OGG_HEADER + segments]
    end = at + _OGG_HEADER + segments + sum(sizes)
    return len(sizes) == segments and end <= len(data) and bool(data[at + 5] & _OGG_END_OF_STREAM)
