"""Bytes of a picture → uint8 RGB as a person sees it: JPEG by libjpeg-turbo, everything else by Pillow, one frame, EXIF turned."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 178_956_970  # as in data preparation (Pillow's own limit): more is an attack or a mistake

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {
    0xC4,
    0xC8,
    0xCC,
}  # the rest are Huffman, reserved and arithmetic tables
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


class DecodeError(ValueError):
    """The bytes are no picture that can be shown."""


def decode_image(data: bytes) -> Tensor:
    """Decode a picture to (3, H, W) uint8 RGB, turned as its EXIF orientation says.

    Of an animation the first frame is taken; transparency is laid over white, as on the page that it was made for; 16 bits per
    channel are cut to 8.

    Raises:
        DecodeError: the bytes are no picture, are cut off, or hold more than `MAX_PIXELS`.
    """
    size = jpeg_size(data)
    if size is not None:
        _check_size(*size)
        from torchvision.io import ImageReadMode, decode_jpeg

        try:
            stored = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            decoded: Tensor = decode_jpeg(stored, mode=ImageReadMode.RGB, apply_exif_orientation=True)
            return decoded
        except RuntimeError:
            pass  # an odd file: Pillow reads some of them, and says better what is wrong with the others
    return _decode_by_pillow(data)


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Read width and height, as stored, from a JPEG's frame header; None where there is none."""
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
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _decode_by_pillow(data: bytes) -> Tensor:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            _check_size(*picture.size)
            shown = ImageOps.exif_transpose(picture)
            pixels = _as_rgb(shown if shown is not None else picture)
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
        struct.error,
    ) as problem:
        raise DecodeError(f"not a picture that can be decoded ({problem})") from problem
    return torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W), channels last in memory as decode_jpeg's


def _as_rgb(picture: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
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
