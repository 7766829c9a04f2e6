"""Where a file ends by what it says itself: the size in its header, or its parts followed one after another to the last.

What stands behind the last part is nobody's: zeros and junk there are no fault. Where a file does not say, nothing is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from shards.records import MediaProblem

_EBML_SEGMENT = 0x18538067
_OGG_END_OF_STREAM = 4
_OGG_HEADER = 27  # bytes of an Ogg page before its segment table
_RIFF_UNKNOWN = 0x7FFF_F000  # and above: stands for "as much as there is"
TS_PACKETS = (188, 192)  # bytes of an MPEG transport packet, as broadcast and as cameras write it
_GIF_EXTENSION, _GIF_PICTURE, _GIF_END = 0x21, 0x2C, 0x3B
_GIF_HEADER, _GIF_DESCRIPTOR = 13, 10  # bytes
_PNG_HEADER, _PNG_CHUNK = 8, 12  # bytes; of a chunk without its content
_FLV_TAGS = frozenset({8, 9, 18})  # sound, pictures, facts about both
_FLV_TAG = 11  # bytes of a tag before its body
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_OBJECT = 24  # bytes of an object before its content
_START_CODE = b"\0\0\1"
_PACK, _PROGRAM_END, _FIRST_PACKET = 0xBA, 0xB9, 0xBB  # MPEG start codes
_MPEG1_PACK, _MPEG2_PACK = 12, 14  # bytes of the header of a pack


def missing_bytes(data: bytes, format: str) -> int:
    """How many bytes a file lacks of what it says that it has; 0 for one that is whole, or does not say.

    Args:
        data: the file.
        format: FFmpeg's name of its container.

    Raises:
        MediaProblem: it breaks off, and nothing says how long it would be.
    """
    return max(0, _MISSING[format](data)) if format in _MISSING else 0


def gif_missing(data: bytes) -> int:
    """How many bytes a GIF lacks at least; its last block says that it is the last."""
    if len(data) < _GIF_HEADER:
        return _GIF_HEADER - len(data)
    at = _GIF_HEADER + _gif_colours(data[10])
    while at < len(data):
        kind = data[at]
        if kind == _GIF_END:
            return 0
        if kind == _GIF_PICTURE:
            flags = data[at + 9] if at + 9 < len(data) else 0
            at = _after_gif_parts(data, at + _GIF_DESCRIPTOR + _gif_colours(flags) + 1)
        elif kind == _GIF_EXTENSION:
            at = _after_gif_parts(data, at + 2)
        elif kind == 0:  # some encoders end a block twice
            at += 1
        else:
            return 0  # no GIF that follows its rules; decoders stop here
    return at + 1 - len(data)


def animated_png_missing(data: bytes) -> int:
    """How many bytes an animated PNG lacks at least; a still one has all that matters once its pixels can be decoded."""
    at, is_animated = _PNG_HEADER, False
    while at < len(data):
        name = data[at + 4 : at + 8]
        is_animated |= name == b"acTL"
        at += _PNG_CHUNK + int.from_bytes(data[at : at + 4], "big")
        if name == b"IEND":
            return at - len(data)
    return at + _PNG_CHUNK - len(data) if is_animated else 0


def _gif_colours(flags: int) -> int:
    """Bytes of a table of colours."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_gif_parts(data: bytes, at: int) -> int:
    """Where the parts of a block end, each of which says its size; may be behind the data."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def _iso_missing(data: bytes) -> int:
    missing = max((end for _, _, end in _boxes(data)), default=0) - len(data)
    if missing <= 0 and not any(name == b"moov" for name, _, _ in _boxes(data)):
        raise MediaProblem("truncated_media", f"its table of contents is missing, {len(data)} bytes")
    return missing


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


def _riff_missing(data: bytes) -> int:
    stated = int.from_bytes(data[4:8], "little")
    if data[:4] == b"RF64" or stated == 0 or stated >= _RIFF_UNKNOWN:
        return 0  # as a recorder leaves it that wrote to a pipe
    missing = stated + 8 - len(data)
    return 0 if missing == 1 else missing  # a pad byte of the last chunk is often counted and not written


def _matroska_missing(data: bytes) -> int:
    size, at = ebml_number(data, 4, keep_marker=False)
    at += size
    while at + 2 < len(data):
        name, at = ebml_number(data, at, keep_marker=True)
        first = data[at] if at < len(data) else 0
        size, start = ebml_number(data, at, keep_marker=False)
        if name == _EBML_SEGMENT:
            unknown = (1 << 7 * (start - at)) - 1
            return 0 if not first or size == unknown else start + size - len(data)
        at = start + size
    return 0


def ebml_number(data: bytes, at: int, *, keep_marker: bool) -> tuple[int, int]:
    """A number of variable length in a Matroska file, and where it ends; past the end of the data it is 0."""
    first = data[at] if at < len(data) else 0
    length = 9 - first.bit_length() if first else 8
    value = int.from_bytes(data[at : at + length], "big")
    return (value if keep_marker else value & (1 << 7 * length) - 1), at + length


def _ogg_missing(data: bytes) -> int:
    """Raises `MediaProblem` where the last page is cut, or not marked as the last of its stream."""
    at = data.rfind(b"OggS")
    if at >= 0 and at + _OGG_HEADER <= len(data) and data[at + 5] & _OGG_END_OF_STREAM:
        segments = data[at + 26]
        sizes = data[at + _OGG_HEADER : at + _OGG_HEADER + segments]
        if len(sizes) == segments and at + _OGG_HEADER + segments + sum(sizes) <= len(data):
            return 0
    raise MediaProblem("truncated_media", f"its last page is not marked as the end, {len(data)} bytes")


def _transport_missing(data: bytes) -> int:
    return -len(data) % (TS_PACKETS[0] if data.startswith(b"\x47") else TS_PACKETS[1])


def _program_missing(data: bytes) -> int:
    """Follow the packs and packets of an MPEG program stream. One cut between two packets is a stream all the same."""
    at = 0
    while (start := data.find(_START_CODE, at)) >= 0 and not data[at:start].strip(b"\0"):  # zeros fill up sectors
        at = start
        code = data[at + 3] if at + 3 < len(data) else _PACK
        if code == _PACK:
            is_mpeg2 = at + 4 < len(data) and data[at + 4] >> 6 == 1
            stuffing = data[at + 13] & 7 if is_mpeg2 and at + 13 < len(data) else 0
            at += _MPEG2_PACK + stuffing if is_mpeg2 else _MPEG1_PACK
        elif code >= _FIRST_PACKET:
            size = int.from_bytes(data[at + 4 : at + 6], "big")
            if not size and at + 6 <= len(data):
                return 0  # as long as it takes, which only its content tells
            at += 6 + size
        else:
            return 0  # the end, or bare pictures
    return at - len(data)


def _flv_missing(data: bytes) -> int:
    at = int.from_bytes(data[5:9], "big")
    while at + 4 < len(data) and data[at + 4] & 0x1F in _FLV_TAGS:
        at += 4 + _FLV_TAG + int.from_bytes(data[at + 5 : at + 8], "big")  # the size of the tag before comes first
    return at - len(data)


def _asf_missing(data: bytes) -> int:
    """Follow the objects of an ASF file up to its data; the indices behind them are no loss."""
    at = 0
    while at + _ASF_OBJECT <= len(data):
        size = int.from_bytes(data[at + 16 : at + _ASF_OBJECT], "little")
        if data.startswith(_ASF_DATA, at):
            return at + size - len(data)  # 0 from a broadcast, which did not know it
        if size < _ASF_OBJECT:
            return 0
        at += size
    return at + _ASF_OBJECT - len(data)


_MISSING: Mapping[str, Callable[[bytes], int]] = {
    "mov": _iso_missing,
    "avi": _riff_missing,
    "wav": _riff_missing,
    "matroska": _matroska_missing,
    "ogg": _ogg_missing,
    "mpegts": _transport_missing,
    "mpeg": _program_missing,
    "gif": gif_missing,
    "flv": _flv_missing,
    "asf": _asf_missing,
}
