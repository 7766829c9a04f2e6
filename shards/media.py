"""Looking at raw media before they are stored: every picture is checked to its end, and whatever is wrong with it gets a name.

The bytes are stored as found; what is recorded beside them is what a viewer shows, after the EXIF orientation.
"""

from __future__ import annotations

import io
import struct
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from shards.audio import probe_audio
from shards.container_ends import animated_png_missing, gif_missing
from shards.errors import MissingLibraryError
from shards.records import Media, MediaKind, MediaProblem
from shards.regions import probe_regions
from shards.structure import outline
from shards.video import probe_video

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["MAX_PIXELS", "Check", "MediaProblem", "probe_image", "probe_media"]

Check = Literal["decode", "structure"]
"""How a picture is found to be whole: by decoding it, or by following its structure where that is enough."""

MAX_PIXELS = 178_956_970  # Pillow's own limit for one picture

# What Pillow calls a format, and the tar extension under which other readers of the shard look for it.
_EXTENSIONS = {
    "JPEG": "jpg",
    "MPO": "jpg",  # a JPEG with more pictures behind it, as phones write them
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
    "PPM": "ppm",
}
_SIGNATURES = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
_MISSING = {"gif": gif_missing, "png": animated_png_missing}
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers that carry height and width
_ORIENTATION = 0x0112  # EXIF tag; values 5 to 8 lie on their side
_REDUCTION = 8  # libjpeg's smallest scale: reads every coefficient and computes few pixels


def probe_media(data: bytes, *, kind: MediaKind, max_pixels: int = MAX_PIXELS, check: Check = "decode") -> Media:
    """Look into a media file of any kind and describe it, with its tar extension as `member`.

    Raises:
        MediaProblem: it is not of this kind, or broken; see the probe of each kind.
    """
    if kind == "image":
        return _picture(*probe_image(data, max_pixels=max_pixels, check=check))
    if kind == "video":
        return probe_video(data, max_pixels=max_pixels)
    if kind == "audio":
        return probe_audio(data)
    return probe_regions(data)


@lru_cache(1024)  # the pictures of a dataset are of few sizes
def _picture(extension: str, width: int, height: int) -> Media:
    return Media(member=extension, kind="image", width=width, height=height)


def probe_image(data: bytes, *, max_pixels: int = MAX_PIXELS, check: Check = "decode") -> tuple[str, int, int]:
    """Look at a picture to its end and say what it is; the name of its file is not believed.

    Args:
        data: the file.
        max_pixels: pictures with more are decompression bombs. Pillow has its own limit, so values above it may have no effect.
        check: `decode` computes every pixel's share of the file; `structure` does so only where `shards.structure` cannot tell.

    Returns:
        Tar extension of the format found, width and height in pixels as displayed.

    Raises:
        MediaProblem: there are no bytes, no picture in them, no pixels, too many pixels, or the picture breaks off.
        MissingLibraryError: Pillow is not installed.
    """
    if not data:
        raise MediaProblem("zero_size", "the file is empty")
    found = outline(data) if check == "structure" else None
    if found is not None and found.width * found.height <= max_pixels:
        sides = (found.height, found.width) if found.orientation >= 5 else (found.width, found.height)
        return found.extension, *sides
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata and near-bombs; what matters is checked here
        picture = _open(data)
        extension = _EXTENSIONS.get(picture.format or "")
        if extension is None:
            raise MediaProblem("unsupported", f"a picture of format {picture.format}; convert it to JPEG or PNG")
        width, height = picture.size
        if width < 1 or height < 1:
            raise MediaProblem("zero_size", f"the picture is {width}x{height} pixels")
        if width * height > max_pixels:
            raise MediaProblem("decompression_bomb", f"{width}x{height} pixels are more than {max_pixels}")
        missing = _MISSING[extension](data) if extension in _MISSING else 0
        if missing > 0:  # a decoder is content with the first picture of an animation
            raise MediaProblem("truncated_media", f"{len(data)} bytes are there, {missing} are missing")
        _decode(picture)  # first: looking for a PNG's EXIF decodes it as well, and what was broken shows only once
        lies_on_its_side = orientation_of(picture) >= 5
    return (extension, height, width) if lies_on_its_side else (extension, width, height)


def _open(data: bytes) -> Image.Image:
    try:
        from PIL import Image
    except ImportError as problem:
        raise MissingLibraryError("pictures need Pillow: install ostraka with its dependencies") from problem
    try:
        return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as problem:
        raise MediaProblem("decompression_bomb", str(problem)) from problem
    except Exception as problem:  # a broken header makes Pillow's parsers fail in any way; each becomes a named reject
        if 0 in _declared_size(data):  # Pillow takes such a header for no picture at all
            raise MediaProblem("zero_size", "its header says a width or height of 0 pixels") from problem
        if data.startswith(_SIGNATURES):
            raise MediaProblem("truncated_media", f"its header breaks off or is broken, {len(data)} bytes") from problem
        raise MediaProblem("not_media", f"no picture; it starts with {data[:16]!r}") from problem


def _declared_size(data: bytes) -> tuple[int, ...]:
    """The two sides in pixels that the header of a PNG or a JPEG states; empty where there is none."""
    if data.startswith(b"\x89PNG") and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    place = 2
    while data.startswith(b"\xff\xd8") and len(data) >= place + 9 and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in _START_OF_FRAME:
            return struct.unpack(">HH", data[place + 5 : place + 9])
        place += 2 + length
    return ()


def _decode(picture: Image.Image) -> None:
    width, height = picture.size
    # A JPEG is read to its end at any scale, so the smallest finds the same damage in less time.
    picture.draft(None, (max(width // _REDUCTION, 1), max(height // _REDUCTION, 1)))
    try:
        picture.load()
    except MemoryError as problem:
        raise MediaProblem("decompression_bomb", f"{width}x{height} pixels do not fit into memory") from problem
    except Exception as problem:  # see `_open`
        raise MediaProblem("truncated_media", f"{width}x{height} {picture.format}: {problem}") from problem


def orientation_of(picture: Image.Image) -> int:
    """How a picture lies, as EXIF counts: 1 upright, from 5 on with width and height exchanged."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF does not break a picture; it is then shown as it is stored
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
