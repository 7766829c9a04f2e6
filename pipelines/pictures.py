"""Pictures made smaller: what a viewer shows of a file, at another size, in plain sRGB or grey samples, and back to a file.

Usual JPEGs go through libjpeg-turbo, everything else through Pillow. Resizing is antialiased bicubic on 8-bit samples by
whole-number arithmetic, so that it gives the same bytes on every processor.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from shards.errors import MissingLibraryError
from shards.media import MediaProblem
from shards.structure import outline

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.uint8]  # (H, W, C): grey, RGB, or RGB and opacity
PictureFormat = Literal["jpg", "png", "webp"]

_PROFILE = b"ICC_PROFILE\0"
# Stands in the description of every profile that says no more than what is assumed anyway; the second is how ICC 4 spells it.
_STANDARD_PROFILES = (b"sRGB", "sRGB".encode("utf-16-be"))
_PROFILE_START = 1 << 12  # bytes in which the description stands
_SMALLEST_SHORTCUT = 2.0  # libjpeg's scaled decoding only saves time from halves on
_TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}


def draw(data: bytes, *, width: int, height: int) -> Pixels:
    """Draw a picture at a size.

    Turned as its EXIF says, with its colours as an sRGB screen shows them: a colour profile is applied, CMYK and palettes
    become RGB, 16 bits become 8. Opacity is kept.

    Args:
        data: the file.
        width, height: in pixels, as displayed.

    Returns:
        uint8 (height, width, C), where C is 1, 3 or 4.

    Raises:
        MediaProblem: `unsupported` for an animation or for samples without a known range, `truncated_media` for a broken file.
        MissingLibraryError: a codec is not installed.
    """
    plain = _plain_jpeg(data, width=width, height=height)
    if plain is None:
        return _odd_picture(data, width=width, height=height)
    pixels, orientation = plain
    size = (height, width) if orientation >= 5 else (width, height)
    return _turned(resize(pixels, width=size[0], height=size[1]), orientation)


def resize(pixels: Pixels, *, width: int, height: int) -> Pixels:
    """Resize (H, W, C) without opacity to (height, width, C): bicubic, over as many samples as each new one covers."""
    if pixels.shape[:2] == (height, width):
        return pixels
    import torch

    # (1, C, H, W), channels last in memory. The batch comes first: by the stride of one that was added later torch does not see
    # that channels are last, works plane by plane and gives planes.
    planes = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    drawn = torch.nn.functional.interpolate(planes, size=(height, width), mode="bicubic", antialias=True)
    result: Pixels = drawn.permute(0, 2, 3, 1)[0].contiguous().numpy()
    return result


def encode_picture(pixels: Pixels, *, format: PictureFormat, quality: int) -> bytes:
    """Write a picture; the same bytes for the same samples. A JPEG has no opacity: what lies behind it is white.

    Args:
        pixels: uint8 (H, W, C), where C is 1, 3 or 4.
        format: by its tar extension.
        quality: 1 to 100, of a JPEG or a WebP.
    """
    if format == "jpg":
        channels = pixels.shape[2]
        opaque = _on_white(pixels) if channels == 4 else pixels
        kind, sampling = ("GRAY", "Gray") if channels == 1 else ("RGB", "420")
        written: bytes = _jpeg_codec().encode_jpeg(opaque, quality=quality, colorspace=kind, colorsubsampling=sampling)
        return written
    from PIL import Image

    out = io.BytesIO()
    options: dict[str, Any] = {"quality": quality, "method": 4} if format == "webp" else {}
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(out, format.upper(), **options)
    return out.getvalue()


def _plain_jpeg(data: bytes, *, width: int, height: int) -> tuple[Pixels, int] | None:
    """Decode a usual JPEG to no less than a size, with the EXIF orientation; None where Pillow must do it."""
    found = outline(data)
    if found is None or found.extension != "jpg":
        return None
    profile = data.find(_PROFILE, 0, found.start)
    if profile >= 0 and not _is_standard(data[profile : profile + _PROFILE_START]):
        return None
    if found.orientation >= 5:
        width, height = height, width
    codec = _jpeg_codec()
    scaled = min(found.width / width, found.height / height) >= _SMALLEST_SHORTCUT
    limits = {"min_width": width, "min_height": height, "min_factor": _SMALLEST_SHORTCUT} if scaled else {}
    try:
        space = codec.decode_jpeg_header(data)[2]
        if space not in ("YCbCr", "Gray", "RGB"):
            return None
        pixels: Pixels = codec.decode_jpeg(data, colorspace="GRAY" if space == "Gray" else "RGB", **limits)
    except ValueError:  # it is strict about odd files that Pillow shows; what Pillow cannot read either is broken
        return None
    return pixels, found.orientation


def _odd_picture(data: bytes, *, width: int, height: int) -> Pixels:
    """What Pillow makes of a picture."""
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # see `shards.media.probe_image`
        try:
            picture = Image.open(io.BytesIO(data))
            frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
            if frames > 1 and picture.format != "TIFF":
                raise MediaProblem("unsupported", f"an animation of {frames} pictures; a still one has no such size")
            picture.load()
            shown = ImageOps.exif_transpose(_standard(picture))
        except MediaProblem:
            raise
        except MemoryError as problem:
            raise MediaProblem("decompression_bomb", "the picture does not fit into memory") from problem
        except Exception as problem:  # broken files make Pillow fail in any way; each becomes a named reject
            raise MediaProblem("truncated_media", str(problem) or type(problem).__name__) from problem
    if shown.mode == "RGBA":  # Pillow weighs colours by their opacity
        return np.array(shown.resize((width, height), Image.Resampling.BICUBIC))
    samples = np.array(shown)
    return resize(samples.reshape(*samples.shape[:2], -1), width=width, height=height)


def _standard(picture: Image.Image) -> Image.Image:
    """Bring a loaded picture to `L`, `RGB` or `RGBA`, in the colours of sRGB."""
    from PIL import Image

    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I"):  # 16 bits, whatever Pillow calls them
        high = np.asarray(picture).astype(np.int64)
        if high.min(initial=0) < 0 or high.max(initial=0) > 0xFFFF:
            raise MediaProblem("unsupported", "samples of 32 bits have no known range; convert it to 8 or 16 bits")
        deep = Image.fromarray((high >> 8).astype(np.uint8))
        deep.info["exif"] = picture.info.get("exif", b"")
        return deep
    if picture.mode == "F":
        raise MediaProblem("unsupported", "floating-point samples have no known range; convert it to 8 or 16 bits")
    has_opacity = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
    if profile and picture.mode in ("RGB", "CMYK", "L") and not _is_standard(profile[:_PROFILE_START]):
        return _in_standard_colours(picture, profile)
    if picture.mode in ("1", "L") and not has_opacity:
        return picture.convert("L")
    return picture.convert("RGBA" if has_opacity else "RGB")


def _is_standard(profile: bytes) -> bool:
    return any(name in profile for name in _STANDARD_PROFILES)


def _in_standard_colours(picture: Image.Image, profile: bytes) -> Image.Image:
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        shown = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):  # a broken or unfitting profile is what viewers ignore too
        shown = None
    return picture.convert("RGB") if shown is None else shown


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """Turn stored samples by an EXIF orientation, 1 to 8."""
    if orientation == 1:
        return pixels
    quarters, mirrored = _TURNS[orientation]
    turned = np.rot90(pixels, quarters)
    return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)


def _on_white(pixels: Pixels) -> Pixels:
    opacity = pixels[:, :, 3:].astype(np.uint32)
    seen = pixels[:, :, :3] * opacity + 255 * (255 - opacity)
    return ((seen + 127) // 255).astype(np.uint8)


def _jpeg_codec() -> Any:
    try:
        import simplejpeg
    except ImportError as problem:
        raise MissingLibraryError("resize_image needs simplejpeg: pip install simplejpeg") from problem
    return simplejpeg
