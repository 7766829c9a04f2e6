"""The grounds that scenes stand on: eight places a caption can name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from jobs.demo.scenes import Backdrop

if TYPE_CHECKING:
    from PIL import ImageDraw

Rgb = tuple[int, int, int]


class Ground:
    """Paints bands, hills and marks over a whole picture; all measures are shares of its side."""

    def __init__(self, draw: ImageDraw.ImageDraw, *, side: int, shift: float) -> None:
        self._draw, self._side = draw, side
        self.shift = shift  # -1 to 1: moves the horizon and the hills a little

    def fade(self, top: float, bottom: float, upper: Rgb, lower: Rgb) -> None:
        """A band that fades from one colour to another in 24 stripes."""
        start, height = top * self._side, (bottom - top) * self._side
        for stripe in range(24):
            red, green, blue = (round(a + (b - a) * stripe / 23) for a, b in zip(upper, lower, strict=True))
            y0, y1 = round(start + height * stripe / 24), round(start + height * (stripe + 1) / 24)
            self._draw.rectangle((0, y0, self._side, y1), fill=(red, green, blue))

    def hill(self, centre: float, top: float, width: float, height: float, fill: Rgb) -> None:
        """An ellipse wide enough to read as a hill."""
        box = (centre - width / 2, top, centre + width / 2, top + height)
        self._draw.ellipse([round(value * self._side) for value in box], fill=fill)

    def bar(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb) -> None:
        self._draw.rectangle([round(value * self._side) for value in (x0, y0, x1, y1)], fill=fill)

    def dot(self, x: float, y: float, radius: float, fill: Rgb) -> None:
        self.hill(x, y - radius, 2 * radius, 2 * radius, fill)


def paint_backdrop(draw: ImageDraw.ImageDraw, backdrop: Backdrop, *, side: int, shift: float) -> None:
    """Cover a square picture of `side` pixels with a backdrop."""
    PLACES[backdrop](Ground(draw, side=side, shift=shift))


def _meadow(ground: Ground) -> None:
    ground.fade(0.0, 0.75, (142, 204, 246), (206, 234, 250))
    ground.hill(0.2 + 0.1 * ground.shift, 0.46, 1.4, 0.9, (128, 190, 96))
    ground.hill(0.9 + 0.1 * ground.shift, 0.52, 1.5, 0.9, (106, 176, 82))
    ground.fade(0.72, 1.0, (104, 174, 80), (82, 150, 66))


def _beach(ground: Ground) -> None:
    horizon = 0.4 + 0.02 * ground.shift
    ground.fade(0.0, horizon, (120, 196, 240), (196, 230, 248))
    ground.fade(horizon, 0.58, (46, 140, 196), (92, 190, 214))
    ground.fade(0.58, 1.0, (240, 220, 172), (226, 198, 142))
    ground.bar(0.0, 0.565, 1.0, 0.59, (246, 250, 250))


def _night(ground: Ground) -> None:
    ground.fade(0.0, 1.0, (16, 20, 52), (48, 52, 104))
    for spark in range(26):  # a fixed scatter (golden-ratio steps); only its phase moves with the scene
        x = (0.31 + spark * 0.618034 + 0.1 * ground.shift) % 1.0
        y = (0.07 + spark * 0.754878) % 0.72
        ground.dot(x, y, 0.004 + 0.003 * (spark % 3 == 0), (220, 224, 244))
    ground.fade(0.86, 1.0, (26, 30, 62), (18, 22, 48))


def _snow(ground: Ground) -> None:
    ground.fade(0.0, 0.78, (176, 200, 222), (224, 234, 242))
    ground.hill(0.75 + 0.1 * ground.shift, 0.44, 1.2, 0.9, (232, 240, 248))
    ground.hill(0.15 + 0.1 * ground.shift, 0.54, 1.5, 0.9, (244, 248, 252))
    ground.fade(0.76, 1.0, (244, 248, 252), (222, 232, 244))
    for flake in range(18):
        ground.dot((0.13 + flake * 0.618034) % 1.0, (0.05 + flake * 0.754878) % 0.6, 0.008, (252, 253, 255))


def _sea(ground: Ground) -> None:
    ground.fade(0.0, 1.0, (70, 178, 214), (18, 92, 150))
    for wave in range(7):
        y = 0.1 + wave * 0.14
        for crest in range(5):
            x = (crest * 0.25 + wave * 0.13 + 0.08 * ground.shift) % 1.1
            ground.hill(x, y, 0.17, 0.022, (132, 208, 230) if wave < 3 else (64, 146, 196))


def _desert(ground: Ground) -> None:
    ground.fade(0.0, 0.6, (250, 226, 170), (252, 206, 140))
    ground.fade(0.6, 1.0, (208, 130, 62), (204, 126, 60))
    ground.hill(0.78 + 0.1 * ground.shift, 0.4, 1.3, 0.9, (222, 148, 78))
    ground.hill(0.12 + 0.1 * ground.shift, 0.5, 1.5, 0.9, (208, 130, 62))
    ground.fade(0.74, 1.0, (204, 126, 60), (178, 100, 46))


def _room(ground: Ground) -> None:
    ground.fade(0.0, 0.66, (228, 214, 206), (218, 200, 192))
    ground.bar(0.0, 0.64, 1.0, 0.67, (250, 246, 240))
    ground.fade(0.67, 1.0, (176, 124, 82), (150, 100, 62))
    for plank in range(3):
        y = 0.75 + plank * 0.085
        ground.bar(0.0, y, 1.0, y + 0.006, (130, 84, 52))
    left = 0.1 if ground.shift < 0 else 0.66
    ground.bar(left, 0.08, left + 0.24, 0.36, (250, 246, 240))
    ground.bar(left + 0.02, 0.1, left + 0.22, 0.34, (168, 208, 230))
    ground.bar(left + 0.11, 0.1, left + 0.13, 0.34, (250, 246, 240))


def _road(ground: Ground) -> None:
    ground.fade(0.0, 0.46, (188, 196, 206), (214, 218, 224))
    for tower in range(6):
        left, top = tower * 0.18 - 0.04 + 0.03 * ground.shift, 0.16 + 0.07 * ((tower * 3) % 4)
        ground.bar(left, top, left + 0.15, 0.46, (156, 164, 178) if tower % 2 else (170, 176, 188))
    ground.fade(0.44, 0.52, (170, 166, 158), (182, 178, 170))
    ground.fade(0.52, 1.0, (108, 110, 116), (86, 88, 94))
    for dash in range(4):
        left = dash * 0.3 - 0.05 + 0.1 * ground.shift
        ground.bar(left, 0.9, left + 0.16, 0.925, (236, 232, 214))


PLACES: Mapping[Backdrop, Callable[[Ground], None]] = {
    "meadow": _meadow,
    "beach": _beach,
    "night": _night,
    "snow": _snow,
    "sea": _sea,
    "desert": _desert,
    "room": _room,
    "road": _road,
}
