"""Which container holds a clip or a sound, told by its bytes alone, and whether the file is as long as it says itself.

The name of a file is not believed, and the container is named to the decoder rather than guessed by it: a guess could take
a raw file for a playlist, and follow it to other files and to the network.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from shards.container_ends import TS_PACKETS, ebml_number, missing_bytes
from shards.errors import MissingLibraryError
from shards.records import MediaProblem

_QUICKTIME_BOXES = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})  # a QuickTime file without `ftyp`
_FORMAT_OF_ISO = "mov"  # FFmpeg has one reader for all of MP4, M4A, MOV and 3GP
_EBML, _DOC_TYPE = 0x1A45DFA3, 0x4282
_TS_SYNC = 0x47  # an MPEG transport packet begins with it, behind a time of 4 bytes where a camera wrote it


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
    """Compare a file with what its container says of its end, if anything. Raises `MediaProblem` when it breaks off."""
    missing = missing_bytes(data, container.format)
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
    size, at = ebml_number(data, at, keep_marker=False)
    end = min(end, at + size)
    while at < end:
        name, at = ebml_number(data, at, keep_marker=True)
        size, at = ebml_number(data, at, keep_marker=False)
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
    for packet in TS_PACKETS:
        if len(data) > 3 * packet and all(
            data[end - TS_PACKETS[0]] == _TS_SYNC for end in range(packet, 4 * packet, packet)
        ):
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
