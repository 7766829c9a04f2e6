"""Boxes over a picture: an SVG in the pixels of the stored picture, so that boxes stay where they are at any width of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.report.markup import Markup, join, tag
from shards.records import Box

COLOURS = ("#c2410c", "#1d6fb8", "#2f7d4f", "#8b3fb0", "#b0892b", "#c23a6b", "#0f7f86", "#6b5b3e")
MOST_BOXES = 60  # drawn; a picture with more cannot be read anyway
SHOWN_WIDTH = 400  # CSS pixels that a card gives to a picture
SHOWN_HEIGHT = 448
LETTERS = 13.0  # CSS pixels of a label at that width
_NARROW, _WIDE = frozenset("fijlrtI.,:;'|!()[] -"), frozenset("mwMW@%")
_LONGEST_LABEL = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A box to be drawn: what is written on it, and the colour by its number."""

    box: Box
    label: str
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plate:
    """Where a label lies, in pixels of the picture."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: _Plate) -> bool:
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


def colour_of(number: int) -> str:
    """The colour of the n-th thing; they repeat after eight."""
    return COLOURS[number % len(COLOURS)]


def shown_size(width: float, height: float) -> tuple[float, float]:
    """The CSS pixels at which a card shows a picture of this size: within a column's width and a bound of its height."""
    scale = min(SHOWN_WIDTH / width, SHOWN_HEIGHT / height)
    return width * scale, height * scale


def overlay(boxes: Sequence[Marked], *, width: float, height: float) -> Markup:
    """Draw boxes with their labels for a picture of `width` x `height` pixels.

    Labels are as large on the page whatever the picture's size. Each looks for a place at its box's edges where it covers no
    earlier label and does not leave the picture; one that finds none is left out, because two labels over each other are none.

    Args:
        boxes: in the order in which they get their labels; the first `MOST_BOXES` are drawn.
        width, height: of the stored picture, in which the boxes are measured.
    """
    unit = width / shown_size(width, height)[0]  # pixels of the picture per CSS pixel
    letters = LETTERS * unit
    lines: list[Markup] = []
    labels: list[Markup] = []
    taken: list[_Plate] = []
    for marked in boxes[:MOST_BOXES]:
        x0, y0, x1, y1 = marked.box
        place = {"x": _number(x0), "y": _number(y0), "width": _number(x1 - x0), "height": _number(y1 - y0)}
        lines.append(tag("rect", class_="halo", **place))
        lines.append(tag("rect", tag("title", marked.label), class_="box", stroke=marked.colour, **place))
        text = clipped(marked.label, _LONGEST_LABEL)
        plate = _free_place(marked.box, text, letters=letters, width=width, height=height, taken=taken)
        if plate is None:
            continue
        taken.append(plate)
        labels.append(_label(plate, text, colour=marked.colour, letters=letters))
    return tag(
        "svg",
        join(lines),
        join(labels),
        viewBox=f"0 0 {_number(width)} {_number(height)}",
        class_="overlay",
        aria_hidden="true",
    )


def clipped(text: str, longest: int) -> str:
    """A text of at most `longest` letters, with an ellipsis where some are left out."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def _label(plate: _Plate, text: str, *, colour: str, letters: float) -> Markup:
    return join(
        [
            tag(
                "rect",
                x=_number(plate.x),
                y=_number(plate.y),
                width=_number(plate.width),
                height=_number(plate.height),
                rx=_number(letters * 0.2),
                fill=colour,
            ),
            tag(
                "text",
                text,
                x=_number(plate.x + letters * 0.3),
                y=_number(plate.y + letters * 1.05),
                font_size=_number(letters),
            ),
        ]
    )


def _free_place(
    box: Box, text: str, *, letters: float, width: float, height: float, taken: Sequence[_Plate]
) -> _Plate | None:
    """The first place at a box's edges that is free: above, inside at the top, inside at the bottom, below; left, then right."""
    if not text:
        return None
    wide, high = letters * (_breadth(text) + 0.6), letters * 1.4
    x0, y0, x1, y1 = box
    for x in (x0, x1 - wide):
        inside = min(max(x, 0.0), max(width - wide, 0.0))
        for y in (y0 - high, y0, y1 - high, y1):
            plate = _Plate(x=inside, y=y, width=wide, height=high)
            if 0 <= y <= height - high and not any(plate.meets(other) for other in taken):
                return plate
    return None


def _breadth(text: str) -> float:
    """About how wide a bold sans text is, in heights of a letter; the page has no script to measure it."""
    return sum(0.42 if letter in _NARROW else 0.98 if letter in _WIDE else 0.68 for letter in text)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
