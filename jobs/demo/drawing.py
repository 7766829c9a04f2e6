"""Pixels of a scene: flat shapes drawn four times too large and averaged down, so edges are smooth and bytes repeat.

No font, no anti-aliasing of a platform, no randomness beyond the scene's own: integer drawing and a box average only.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from jobs.demo.backdrops import paint_backdrop
from jobs.demo.scenes import Colour, Kind, Placed, Scene, place_things

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

PICTURE_SIDE = 128  # pixels of the finished picture
OVERSAMPLE = 4

Rgb = tuple[int, int, int]
Point = tuple[float, float]

PAINT: Mapping[Colour, Rgb] = {
    "red": (216, 44, 48),
    "orange": (244, 138, 28),
    "yellow": (252, 214, 56),
    "green": (44, 158, 78),
    "blue": (40, 104, 222),
    "purple": (132, 66, 184),
    "pink": (248, 130, 178),
    "black": (38, 38, 44),
    "white": (250, 250, 247),
}
GLASS: Rgb = (214, 234, 246)
WOOD: Rgb = (118, 78, 46)
LEAF: Rgb = (62, 132, 66)


class Pen:
    """Draws in the unit square of one thing: (0, 0) is its upper left corner, (1, 1) its lower right one."""

    def __init__(self, draw: ImageDraw.ImageDraw, *, left: float, top: float, side: float, colour: Colour) -> None:
        self._draw = draw
        self._left, self._top, self._side = left, top, side
        self._line = max(2, round(side * 0.03))
        self.fill = PAINT[colour]
        self.shade = mix(self.fill, (0, 0, 0), 0.22) if colour != "black" else (64, 64, 72)
        self.light = mix(self.fill, (255, 255, 255), 0.35) if colour != "white" else (255, 255, 255)
        # A dark thing gets a lighter rim and a light thing a darker one: it stays visible on every ground.
        self.rim = (120, 120, 132) if colour == "black" else mix(self.fill, (20, 20, 30), 0.5)

    def polygon(self, points: Sequence[Point], fill: Rgb, *, rim: bool = True) -> None:
        spots = [self._at(point) for point in points]
        self._draw.polygon(spots, fill=fill)
        if rim:
            self._draw.line([*spots, spots[0], spots[1]], fill=self.rim, width=self._line, joint="curve")

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb, *, rim: bool = True) -> None:
        box = (*self._at((x0, y0)), *self._at((x1, y1)))
        self._draw.ellipse(box, fill=fill, outline=self.rim if rim else None, width=self._line if rim else 0)

    def line(self, points: Sequence[Point], fill: Rgb, *, width: float) -> None:
        self._draw.line(
            [self._at(point) for point in points], fill=fill, width=max(1, round(width * self._side)), joint="curve"
        )

    def _at(self, point: Point) -> tuple[int, int]:
        return round(self._left + point[0] * self._side), round(self._top + point[1] * self._side)


def render(scene: Scene) -> Image.Image:
    """Draw a scene as an RGB picture of `PICTURE_SIDE` pixels."""
    from PIL import Image, ImageDraw

    side = PICTURE_SIDE * OVERSAMPLE
    canvas = Image.new("RGB", (side, side))
    paint_backdrop(ImageDraw.Draw(canvas), scene.backdrop, side=side, shift=scene.jitter[4])
    things = place_things(scene)
    glaze = ImageDraw.Draw(canvas, "RGBA")  # blends
    for thing in things:
        if thing.grounded:
            _shadow(glaze, thing, side)
    draw = ImageDraw.Draw(canvas)
    for thing in things:
        pen = Pen(draw, left=thing.left * side, top=thing.top * side, side=thing.side * side, colour=thing.colour)
        SHAPES[thing.kind](pen)
    return canvas.reduce(OVERSAMPLE)


def render_jpeg(scene: Scene) -> bytes:
    """Draw a scene and encode it. 4:4:4 keeps the colours of small things apart."""
    buffer = io.BytesIO()
    render(scene).save(buffer, format="JPEG", quality=88, subsampling=0)
    return buffer.getvalue()


@cache
def extent(kind: Kind) -> tuple[float, float, float, float]:
    """Find what a kind of thing covers of its own square: x0, y0, x1, y1 as shares of the square's side."""
    from PIL import Image, ImageDraw

    side, margin = 512, 64  # rims may reach a little beyond the square
    canvas = Image.new("RGB", (side + 2 * margin, side + 2 * margin))
    SHAPES[kind](Pen(ImageDraw.Draw(canvas), left=margin, top=margin, side=side, colour="red"))
    covered = canvas.getbbox()
    assert covered is not None
    x0, y0, x1, y1 = ((edge - margin) / side for edge in covered)
    return x0, y0, x1, y1


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """`first` with a share of `second` in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _shadow(draw: ImageDraw.ImageDraw, thing: Placed, side: int) -> None:
    bottom, height = thing.top + thing.side, thing.side * 0.07
    box = (thing.left + thing.side * 0.08, bottom - height, thing.left + thing.side * 0.92, bottom + height)
    draw.ellipse([round(value * side) for value in box], fill=(10, 12, 30, 64))


def _ball(pen: Pen) -> None:
    pen.ellipse(0.04, 0.04, 0.96, 0.98, pen.fill)
    pen.polygon(_arc(0.5, 0.51, 0.2, 0.45, start=0, end=360), pen.light, rim=False)
    pen.ellipse(0.38, 0.12, 0.62, 0.9, pen.fill, rim=False)
    pen.ellipse(0.22, 0.16, 0.36, 0.28, mix(pen.light, (255, 255, 255), 0.6), rim=False)


def _box(pen: Pen) -> None:
    pen.polygon([(0.04, 0.3), (0.72, 0.3), (0.72, 0.98), (0.04, 0.98)], pen.fill)
    pen.polygon([(0.04, 0.3), (0.26, 0.08), (0.96, 0.08), (0.72, 0.3)], pen.light)
    pen.polygon([(0.72, 0.3), (0.96, 0.08), (0.96, 0.76), (0.72, 0.98)], pen.shade)


def _star(pen: Pen) -> None:
    points = []
    for corner in range(10):
        radius = 0.52 if corner % 2 == 0 else 0.22
        angle = math.radians(36 * corner - 90)
        points.append((0.5 + radius * math.cos(angle), 0.53 + radius * math.sin(angle)))
    pen.polygon(points, pen.fill)


def _heart(pen: Pen) -> None:
    points = []
    for step in range(48):
        t = 2 * math.pi * step / 48
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((0.5 + x / 34, 0.46 - y / 33))
    pen.polygon(points, pen.fill)
    pen.ellipse(0.2, 0.2, 0.36, 0.36, pen.light, rim=False)


def _house(pen: Pen) -> None:
    pen.polygon([(0.14, 0.45), (0.86, 0.45), (0.86, 0.98), (0.14, 0.98)], pen.fill)
    pen.polygon([(0.02, 0.47), (0.5, 0.04), (0.98, 0.47)], pen.shade)
    pen.polygon([(0.54, 0.62), (0.74, 0.62), (0.74, 0.98), (0.54, 0.98)], WOOD)
    pen.polygon([(0.24, 0.58), (0.44, 0.58), (0.44, 0.76), (0.24, 0.76)], GLASS)


def _tree(pen: Pen) -> None:
    pen.polygon([(0.42, 0.6), (0.58, 0.6), (0.62, 0.98), (0.38, 0.98)], WOOD)
    for box in ((0.06, 0.26, 0.56, 0.72), (0.44, 0.26, 0.94, 0.72), (0.22, 0.02, 0.78, 0.52)):
        pen.ellipse(*box, pen.fill)
    pen.ellipse(0.24, 0.24, 0.76, 0.68, pen.fill, rim=False)


def _car(pen: Pen) -> None:
    pen.polygon([(0.2, 0.55), (0.32, 0.27), (0.7, 0.27), (0.84, 0.55)], pen.fill)
    pen.polygon([(0.28, 0.53), (0.36, 0.34), (0.49, 0.34), (0.49, 0.53)], GLASS, rim=False)
    pen.polygon([(0.54, 0.53), (0.54, 0.34), (0.66, 0.34), (0.75, 0.53)], GLASS, rim=False)
    pen.polygon([(0.02, 0.55), (0.9, 0.55), (0.98, 0.64), (0.98, 0.84), (0.02, 0.84)], pen.fill)
    for x in (0.14, 0.62):
        pen.ellipse(x, 0.7, x + 0.26, 0.97, (44, 44, 50))
        pen.ellipse(x + 0.08, 0.78, x + 0.18, 0.89, (196, 196, 202), rim=False)


def _boat(pen: Pen) -> None:
    pen.line([(0.5, 0.04), (0.5, 0.72)], WOOD, width=0.05)
    pen.polygon([(0.55, 0.06), (0.55, 0.62), (0.95, 0.62)], (246, 244, 236))
    pen.polygon([(0.45, 0.16), (0.45, 0.62), (0.12, 0.62)], (228, 226, 220))
    pen.polygon([(0.02, 0.7), (0.98, 0.7), (0.8, 0.97), (0.2, 0.97)], pen.fill)
    pen.line([(0.1, 0.78), (0.9, 0.78)], pen.light, width=0.04)


def _fish(pen: Pen) -> None:
    pen.polygon([(0.28, 0.52), (0.0, 0.26), (0.06, 0.52), (0.0, 0.8)], pen.shade)
    pen.polygon([(0.4, 0.34), (0.56, 0.12), (0.7, 0.32)], pen.shade)
    pen.ellipse(0.18, 0.26, 0.98, 0.8, pen.fill)
    pen.ellipse(0.72, 0.38, 0.86, 0.52, (255, 255, 255), rim=False)
    pen.ellipse(0.77, 0.42, 0.84, 0.49, (20, 20, 24), rim=False)
    pen.line(_arc(0.52, 0.53, 0.09, 0.16, start=-80, end=80), pen.light, width=0.04)


def _mug(pen: Pen) -> None:
    pen.ellipse(0.58, 0.34, 0.98, 0.78, pen.shade)
    pen.ellipse(0.68, 0.45, 0.88, 0.67, mix(pen.shade, (255, 255, 255), 0.55))
    pen.polygon([(0.06, 0.2), (0.74, 0.2), (0.68, 0.97), (0.12, 0.97)], pen.fill)
    pen.ellipse(0.06, 0.1, 0.74, 0.3, pen.light)
    pen.ellipse(0.13, 0.14, 0.67, 0.27, WOOD, rim=False)


def _moon(pen: Pen) -> None:
    outer = _arc(0.46, 0.52, 0.46, 0.46, start=52, end=308)
    inner = _arc(0.66, 0.52, 0.36, 0.38, start=288, end=72)
    pen.polygon([*outer, *inner], pen.fill)


def _flower(pen: Pen) -> None:
    pen.line([(0.5, 0.5), (0.5, 0.98)], LEAF, width=0.07)
    pen.polygon([(0.5, 0.86), (0.72, 0.66), (0.82, 0.7), (0.66, 0.86)], LEAF, rim=False)
    for petal in range(6):
        angle = math.radians(60 * petal)
        x, y = 0.5 + 0.22 * math.cos(angle), 0.35 + 0.22 * math.sin(angle)
        pen.ellipse(x - 0.145, y - 0.145, x + 0.145, y + 0.145, pen.fill)
    heart = (96, 62, 30) if pen.fill == PAINT["yellow"] else PAINT["yellow"]
    pen.ellipse(0.37, 0.22, 0.63, 0.48, heart)


def _arc(x: float, y: float, width: float, height: float, *, start: float, end: float) -> list[Point]:
    """Points along an ellipse from `start` to `end`, in degrees; runs backwards when `end` is smaller."""
    return [
        (x + width * math.cos(math.radians(a)), y + height * math.sin(math.radians(a)))
        for a in (start + (end - start) * step / 32 for step in range(33))
    ]


SHAPES: Mapping[Kind, Callable[[Pen], None]] = {
    "ball": _ball,
    "box": _box,
    "star": _star,
    "heart": _heart,
    "house": _house,
    "tree": _tree,
    "car": _car,
    "boat": _boat,
    "fish": _fish,
    "mug": _mug,
    "moon": _moon,
    "flower": _flower,
}
