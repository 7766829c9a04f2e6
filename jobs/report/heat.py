"""A map of where a text is seen, as colour over its picture: dark where nothing is, glowing where most of it is."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jobs.report.markup import Markup, tag

PEAK = 255  # what a stored map calls its highest place
SMOOTHNESS = 6  # pixels of the drawing per patch; the browser stretches the rest
RING = 0.018  # radius of the mark at the peak, of the picture's longer side
VEIL, GLOW = 0.66, 0.42  # opacity where nothing is seen, and at the peak: the picture stays to be recognised

# From night over embers to light; told apart without hue as well, since it only becomes lighter.
_COLOURS = np.array([(18, 12, 46), (112, 26, 110), (214, 72, 62), (248, 150, 40), (252, 244, 150)], np.float64)


def heat_layer(shares: Sequence[Sequence[int]], *, peak: Sequence[float], width: float, height: float) -> Markup:
    """Draw a map as an SVG that lies over a picture of `width` x `height` pixels.

    Args:
        shares: rows of patches, 0 to 255 of the peak each.
        peak: x and y of the highest place, in pixels of the picture.
        width, height: of the stored picture.
    """
    mark = RING * max(width, height)
    return tag(
        "svg",
        tag(
            "image",
            href=_uri(heat_pixels(shares)),
            width=f"{width:g}",
            height=f"{height:g}",
            preserveAspectRatio="none",
        ),
        tag("circle", cx=f"{peak[0] + 0.5:g}", cy=f"{peak[1] + 0.5:g}", r=f"{mark:.1f}", class_="peak"),
        viewBox=f"0 0 {width:g} {height:g}",
        class_="overlay",
        aria_hidden="true",
    )


def painted(data: bytes, shares: Sequence[Sequence[int]], *, peak: Sequence[float]) -> bytes:
    """Paint a map over an encoded picture, as `heat_layer` lies over it on a page: a JPEG of the picture's own size.

    Args:
        data: the picture's file.
        shares: rows of patches, 0 to 255 of the peak each.
        peak: x and y of the highest place, in pixels of the picture as it is displayed.
    """
    from PIL import Image, ImageDraw, ImageOps

    with Image.open(io.BytesIO(data)) as file:
        picture = ImageOps.exif_transpose(file).convert("RGBA")
    layer = Image.fromarray(heat_pixels(shares), "RGBA").resize(picture.size, Image.Resampling.BILINEAR)
    picture.alpha_composite(layer)
    reach = RING * max(picture.size)
    ring = [(peak[0] - reach, peak[1] - reach), (peak[0] + reach, peak[1] + reach)]
    ImageDraw.Draw(picture).ellipse(ring, outline="white", width=max(1, round(reach / 4)))
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def heat_pixels(shares: Sequence[Sequence[int]]) -> npt.NDArray[np.uint8]:
    """Colour a map of (n, m) shares, smoothed: (6 n, 6 m, 4) red, green, blue and opacity."""
    from PIL import Image

    coarse = Image.fromarray(np.asarray(shares, np.uint8))
    size = (coarse.width * SMOOTHNESS, coarse.height * SMOOTHNESS)
    level = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.float64) / PEAK
    stops = np.linspace(0, 1, len(_COLOURS))
    colours = [np.interp(level, stops, _COLOURS[:, channel]) for channel in range(3)]
    opacity = PEAK * (VEIL + (GLOW - VEIL) * level)
    return np.stack([*colours, opacity], axis=2).round().astype(np.uint8)


def _uri(pixels: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
