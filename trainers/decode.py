"""Bytes of a picture → uint8 RGB as a person sees it: JPEG by libjpeg-turbo, everything else by Pillow, one frame, EXIF turned."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shards.media import orientation_of
from shards.structure import outline

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 178_956_970  # as in data preparation (Pillow's own limit): more is an attack or a mistake

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {
    0xC4,
    0xC8,
    0xCC,
}  # the rest are Huffman, reserved and arithmetic tables
_SEQUENTIAL = frozenset({0xC0, 0xC1})  # frames whose rows come one after the other
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_START_OF_SCAN = 0xDA
_BLOCK = 8  # pixels of a JPEG block's side
_INKS = 4  # components of a CMYK picture
# By EXIF orientation, the axes of (3, H, W) that are mirrored, after rows and columns were exchanged where it is 5 or more.
_MIRRORED: Mapping[int, tuple[int, ...]] = {1: (), 2: (2,), 3: (1, 2), 4: (1,), 5: (), 6: (2,), 7: (1, 2), 8: (1,)}


class DecodeError(ValueError):
    """The bytes are no picture that can be shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A picture, or its upper rows, perhaps at a fraction of its size."""

    pixels: Tensor  # (3, at most height / shrink, width / shrink) uint8 RGB, turned as EXIF says; sides are rounded up
    width: int  # of the whole picture, as displayed
    height: int
    shrink: int = 1


def decode_image(data: bytes) -> Tensor:
    """Decode a picture to (3, H, W) uint8 RGB, turned as its EXIF orientation says.

    Of an animation the first frame is taken; transparency is laid over white, as on the page that it was made for; 16 bits per
    channel are cut to 8.

    Raises:
        DecodeError: the bytes are no picture, are cut off, or hold more than `MAX_PIXELS`.
    """
    return decode_rows(data).pixels


def decode_rows(data: bytes, until: int | None = None, *, shrink: int = 1) -> Decoded:
    """Decode as `decode_image` does, but perhaps without the rows from `until` on, where that saves time.

    Args:
        data: the file.
        until: number of a row of the whole picture.
        shrink: 2, 4 or 8 allows a JPEG to come at this fraction of its size, as computed from fewer of its frequencies.

    Raises:
        DecodeError: as `decode_image`.
    """
    frame = _jpeg_frame(data)
    if frame is None or frame.components == _INKS:  # torch's RGB of printing inks is another than Pillow's
        return _whole(_decode_by_pillow(data))
    _check_size(frame.width, frame.height)
    plain = _decode_plain(data, frame, until, shrink)
    if plain is not None:
        return Decoded(pixels=plain, width=frame.width, height=frame.height, shrink=shrink)
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        # Not turned by torch: of odd EXIF it makes something else than whoever wrote the record's header did.
        pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
        return _whole(_turned(pixels, _orientation_of_jpeg(data)))
    except Exception:  # an odd file: Pillow reads some of them, and says better what is wrong with the others
        return _whole(_decode_by_pillow(data))


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Read width and height, as stored, from a JPEG's frame header; None where there is none."""
    frame = _jpeg_frame(data)
    return None if frame is None else (frame.width, frame.height)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a JPEG's frame header says, and whether the rows of the picture come in one go from top to bottom."""

    width: int  # as stored
    height: int
    components: int
    rows_at_once: int  # rows of pixels that are coded together
    is_one_pass: bool
    height_at: int  # where the height stands, two bytes


def _jpeg_frame(data: bytes) -> _Frame | None:
    if not data.startswith(b"\xff\xd8"):
        return None
    place = 2
    while place + 9 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker in _ALONE:
            place += 2
        elif marker in _START_OF_FRAME:
            height, width, components = struct.unpack_from(">HHB", data, place + 5)
            sampling = data[place + 11 : place + 10 + 3 * components : 3]
            return _Frame(
                width,
                height,
                components,
                _BLOCK * max((each & 15 for each in sampling), default=1),
                marker in _SEQUENTIAL and _components_of_scan(data, place) == components,
                place + 5,
            )
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _components_of_scan(data: bytes, place: int) -> int:
    """How many components the first scan behind a segment holds; 0 where there is none."""
    while place + 4 < len(data) and data[place] == 0xFF:
        if data[place + 1] == _START_OF_SCAN:
            return data[place + 4]
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0


def _decode_plain(data: bytes, frame: _Frame, until: int | None, shrink: int) -> Tensor | None:
    """Decode a whole file that need not be turned, down to `until` and few rows more where that saves time.

    Two thirds of a JPEG's decoding is reading its codes from the top on. So the header is told that the picture ends below
    the rows that are wanted, with one more row of blocks, because smooth colour samples look one row further. What follows
    is then surplus to the decoder, about which torch's would write a warning for each picture.

    Returns:
        (3, at most H / shrink, W / shrink) uint8, where nothing is shrunk the very pixels that torch's decoder gives; None
        where this decoder is not the one to ask.
    """
    shape = outline(data)  # says that no part of the file is missing, which a decoder of upper rows no longer can
    if shape is None or shape.orientation != 1:
        return None
    try:
        import simplejpeg
    except ImportError:
        return None
    stored: bytes | bytearray = data
    rows = frame.height if until is None else (until // frame.rows_at_once + 2) * frame.rows_at_once
    if rows < frame.height and frame.is_one_pass:
        stored = bytearray(data)
        struct.pack_into(">H", stored, frame.height_at, rows)
    else:
        rows = frame.height
    height, width = (-(-side // shrink) for side in (rows, frame.width))
    try:
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
            stored, colorspace="RGB", strict=False, min_height=height, min_width=width, min_factor=shrink
        )
    except ValueError:
        return None
    if pixels.shape[:2] != (height, width):  # the library offers more factors than it is asked for here
        return None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _whole(pixels: Tensor) -> Decoded:
    return Decoded(pixels=pixels, width=pixels.shape[2], height=pixels.shape[1])


def _decode_by_pillow(data: bytes) -> Tensor:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            _check_size(*picture.size)
            pixels = torch.from_numpy(_as_rgb(picture)).permute(2, 0, 1)  # channels last in memory as decode_jpeg's
            return _turned(pixels, orientation_of(picture))
    except MemoryError:  # no fault of the picture, whose size has been looked at
        raise
    except Exception as problem:  # broken files make Pillow's parsers fail in any way
        raise DecodeError(f"not a picture that can be decoded ({problem})") from problem


def _orientation_of_jpeg(data: bytes) -> int:
    from PIL import Image

    shape = outline(data)
    if shape is not None:
        return shape.orientation
    with Image.open(io.BytesIO(data)) as picture:
        return orientation_of(picture)


def _turned(pixels: Tensor, orientation: int) -> Tensor:
    """Turn and mirror (3, H, W) pixels as stored into an upright picture; orientations as EXIF numbers them."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 2)
    mirrored = _MIRRORED[orientation]
    return pixels.flip(mirrored) if mirrored else pixels


def _as_rgb(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """Turn any Pillow mode into (H, W, 3) uint8."""
    from PIL import Image

    if picture.mode.startswith("I"):
        grey = np.asarray(picture)
        # Mode "I" also holds 8-bit values that were widened; "I;16" is always 16 bits.
        if picture.mode != "I" or grey.max(initial=0) > 255:
            grey = np.right_shift(grey, 8)
        return np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    if picture.mode == "F":
        raise DecodeError("floating-point pixels have no agreed range; convert the picture to 8 or 16 bits")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        see_through = picture.convert("RGBA")
        page = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(page, see_through)
    return np.array(picture.convert("RGB"))


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS or not width * height:
        raise DecodeError(f"{width} x {height} pixels; at least one and at most {MAX_PIXELS:,} can be shown")
