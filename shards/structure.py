"""Pictures told whole by their structure: the segments of a JPEG or the chunks of a PNG followed to the end, no pixel computed.

This only ever says yes. What is not plainly a whole picture of a usual kind is left to a decoder, so that every reject has the
same reason whichever way pictures are checked.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended and progressive: what every decoder reads
_OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xDA), 0xFF})  # markers that carry no length
_SCAN, _QUANTIZERS, _CODERS, _APP1 = 0xDA, 0xDB, 0xC4, 0xE1
_USUAL_FRAME = b"\xff\xc0\x00\x11\x08"  # baseline, three components of 8 bits; the sides follow
_USUAL_SCAN = b"\xff\xda\x00\x0c\x03"  # of all three
_USUAL_SCAN_SIZE = 14
_USUAL_START = 1 << 11  # bytes; longer ones hold dates or small pictures of their own, and no two are alike
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112
_SHORT = 3  # EXIF's name of a 16-bit number
_XMP_ORIENTATION = b"tiff:Orientation"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_BEST_RATIO = 1032  # deflate packs no better: a PNG with less data than that has not all of its samples
_OTHER_METADATA = (b"XML:com.adobe.xmp", b"Raw profile type")  # PNG texts that may hold an orientation


class Outline(NamedTuple):
    """What the structure of a whole picture says."""

    extension: str
    width: int  # pixels as stored
    height: int
    orientation: int  # as EXIF counts, 1 to 8
    start: int = 0  # of a JPEG: where its compressed data begin, behind all that is said about them


def outline(data: bytes) -> Outline | None:
    """Follow the structure of a JPEG or PNG to its end; None where a decoder must have the say.

    A whole JPEG has a well-formed header, a frame of 8-bit samples and an end marker after its first scan, where no
    compressed data can hold one; so a file cut anywhere is not whole, whatever follows. Every chunk of a whole PNG has its
    checksum, and its data could hold all samples. Damage inside the compressed data of a JPEG, which a decoder mostly turns
    into wrong pixels, is not seen here.
    """
    if data.startswith(_JPEG_START):
        return _jpeg(data)
    if data.startswith(_PNG_START):
        return _png(data)
    return None


class _Start(NamedTuple):
    """What stands in a JPEG before the compressed data of its first scan."""

    width: int
    height: int
    orientation: int
    frame: int  # where the frame's marker is
    end: int  # where the compressed data begin


def _jpeg(data: bytes) -> Outline | None:
    start = _familiar_start(data) or _start(data)
    if start is None or min(start.width, start.height) < 1 or data.rfind(_JPEG_END, start.end) < 0:
        return None
    return Outline("jpg", start.width, start.height, start.orientation, start.end)


def _familiar_start(data: bytes) -> _Start | None:
    """The start of a picture from an encoder that was seen before, or soon will be: all but its sides is looked up."""
    frame = data.find(_USUAL_FRAME, 2, _USUAL_START)
    scan = data.find(_USUAL_SCAN, frame, _USUAL_START) if frame > 0 else -1
    if scan < 0:
        return None
    sides, end = frame + len(_USUAL_FRAME), scan + _USUAL_SCAN_SIZE
    orientation = _usual_orientation(data[:sides], data[sides + 4 : end])
    if not orientation:
        return None
    height, width = data[sides] << 8 | data[sides + 1], data[sides + 2] << 8 | data[sides + 3]
    return _Start(width, height, orientation, frame, end)


@lru_cache(256)
def _usual_orientation(before: bytes, behind: bytes) -> int:
    """The orientation of a picture by the bytes before and behind its sides; 0 where it has no usual start, whatever its sides."""
    start = _start(before + b"\0\1\0\1" + behind)
    # What looked like the frame and the scan may have been inside of another segment.
    usual = start is not None and (start.frame, start.end) == (
        len(before) - len(_USUAL_FRAME),
        len(before + behind) + 4,
    )
    return start.orientation if start is not None and usual else 0


def _start(data: bytes) -> _Start | None:
    """Follow the segments of a JPEG to its first scan; None where one of them is not as every decoder wants it."""
    size, orientation, frame = (0, 0), 1, 0
    components: Mapping[int, int] = {}  # of the frame: id to quantization table
    quantizers: set[int] = set()
    coders: set[int] = set()  # Huffman tables: class << 4 | id
    place = 2
    while place + 4 < len(data) and data[place] == 0xFF:
        marker, body = data[place + 1], place + 4
        if marker in _ALONE or marker in _OTHER_FRAMES:
            return None
        end = place + 2 + (data[place + 2] << 8 | data[place + 3])
        if end > len(data):
            return None
        if marker == _SCAN:
            usable = quantizers.issuperset(components.values()) and _is_scan(data[body:end], components, coders)
            return _Start(size[1], size[0], orientation, frame, end) if usable else None
        if marker in _FRAMES:
            height, width, components = _frame(data[body:end])
            size, frame = (height, width), place
            if not components:
                return None
        elif marker in (_QUANTIZERS, _CODERS):
            tables = _tables(data[body:end], marker)
            if not tables:
                return None
            (quantizers if marker == _QUANTIZERS else coders).update(tables)
        elif marker == _APP1:
            if data.startswith(_EXIF, body):
                orientation = _orientation(data[body + len(_EXIF) : end])
            if not orientation or data.find(_XMP_ORIENTATION, body, end) >= 0:
                return None
        place = end
    return None


@lru_cache(1024)
def _frame(body: bytes) -> tuple[int, int, Mapping[int, int]]:
    """Height, width and components of a frame header; no components where it is not of 8-bit samples in 1, 3 or 4 of them."""
    if len(body) < 9 or body[0] != 8 or body[5] not in (1, 3, 4) or len(body) != 6 + 3 * body[5]:
        return 0, 0, {}
    components = {body[place]: body[place + 2] for place in range(6, len(body), 3)}
    sampled = all(1 <= side <= 4 for place in range(7, len(body), 3) for side in (body[place] >> 4, body[place] & 15))
    whole = sampled and len(components) == body[5]
    return body[1] << 8 | body[2], body[3] << 8 | body[4], components if whole else {}


@lru_cache(1024)  # most pictures have the tables of the same few encoders
def _tables(body: bytes, marker: int) -> frozenset[int]:
    """The ids of the tables that a segment defines; none where it is broken."""
    return _coders(body) if marker == _CODERS else _quantizers(body)


def _quantizers(body: bytes) -> frozenset[int]:
    found = set()
    place = 0
    while place < len(body) and not body[place] & 0xEC:  # 8 or 16 bits, table 0 to 3
        found.add(body[place] & 3)
        place += 129 if body[place] >> 4 else 65
    return frozenset(found) if place == len(body) else frozenset()


def _coders(body: bytes) -> frozenset[int]:
    found = set()
    place = 0
    while place + 17 <= len(body) and not body[place] & 0xEC:  # for DC or AC, table 0 to 3
        free = 1  # codes of a length must fit beside the shorter ones
        for count in body[place + 1 : place + 17]:
            free = 2 * free - count
            if free < 0:
                return frozenset()
        found.add(body[place])
        place += 17 + sum(body[place + 1 : place + 17])
    return frozenset(found) if place == len(body) else frozenset()


def _is_scan(body: bytes, components: Mapping[int, int], coders: set[int]) -> bool:
    """Whether a scan header names components of the frame and tables that are there."""
    if len(body) < 6 or len(body) != 4 + 2 * body[0] or body[0] > len(components):
        return False
    direct_only = body[-3] == body[-2] == 0  # the first scan of a progressive picture, which needs no other table
    for place in range(1, len(body) - 3, 2):
        tables = body[place + 1]
        if body[place] not in components or tables >> 4 not in coders:
            return False
        if not direct_only and 0x10 | tables & 15 not in coders:
            return False
    return direct_only or (body[-3], body[-2], body[-1]) == (0, 63, 0)


def _png(data: bytes) -> Outline | None:
    view = memoryview(data)
    size = (0, 0)
    least = packed = 0  # bytes: of the samples, and of what they are packed into
    place = len(_PNG_START)
    while place + 12 <= len(data):
        length = int.from_bytes(view[place : place + 4], "big")
        kind, body, end = data[place + 4 : place + 8], place + 8, place + 8 + length
        if view[end : end + 4] != zlib.crc32(view[place + 4 : end]).to_bytes(4, "big"):
            return None
        if (place == len(_PNG_START)) != (kind == b"IHDR"):
            return None
        if kind == b"IHDR":
            size = struct.unpack_from(">II", data, body)
            least = size[1] * (size[0] * data[body + 8] * _PNG_CHANNELS.get(data[body + 9], 1) // 8)
        elif kind == b"IDAT":
            packed += length
        elif kind == b"IEND":
            return Outline("png", *size, 1) if min(size) > 0 and least <= packed * _BEST_RATIO else None
        elif kind == b"eXIf" or (kind in (b"tEXt", b"zTXt", b"iTXt") and data.startswith(_OTHER_METADATA, body)):
            return None
        place = end + 4
    return None


def _orientation(tiff: bytes) -> int:
    """The orientation in an EXIF block: 1 where it holds none, 0 where it is not plainly readable."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 0
    try:
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, values, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == _ORIENTATION:
                return value if kind == _SHORT and values == 1 and 1 <= value <= 8 else 0
    except struct.error:
        return 0
    return 1
