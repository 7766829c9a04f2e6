"""Loss curves as inline SVG: the raw points faint, a smoothed line over them, three levels to read it by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.report.markup import Markup, join, tag

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 10, 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One logged number over the steps of a run."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def smoothed(self) -> tuple[float, ...]:
        """Exponential mean over about a fifteenth of the points, without a pull towards zero at the start."""
        keep = 1 - 2 / (max(1.0, len(self.values) / 15) + 1)
        total = weight = 0.0
        line = []
        for value in self.values:
            total, weight = keep * total + value, keep * weight + 1
            line.append(total / weight)
        return tuple(line)

    @property
    def first(self) -> float:
        return self.smoothed[0]

    @property
    def final(self) -> float:
        return self.smoothed[-1]


def draw_curve(curve: Curve, *, label: str) -> Markup:
    """Draw a curve as a figure: name, first and final smoothed value, and the line.

    Args:
        curve: finite values only, at least one.
        label: what a person calls it.
    """
    smooth = curve.smoothed
    levels = ticks(min(curve.values), max(curve.values))
    low, high = min(levels[0], *curve.values), max(levels[-1], *curve.values)
    start, end = curve.steps[0], curve.steps[-1]

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((step - start) / (end - start) if end > start else 0.5)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low) if high > low else 0.5)

    def path(values: Sequence[float]) -> str:
        points = zip(_thin(curve.steps), _thin(values), strict=True)
        return "M" + "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in points)

    grid = [
        join(
            [
                tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y(level):.1f}", y2=f"{y(level):.1f}", class_="grid"),
                tag("text", short(level), x=LEFT - 6, y=f"{y(level) + 3.5:.1f}", text_anchor="end"),
            ]
        )
        for level in levels
    ]
    summary = f"{label}: from {short(curve.first)} at step {start} to {short(curve.final)} at step {end}"
    drawing = tag(
        "svg",
        tag("title", summary),
        *grid,
        tag("text", f"{start:,}", x=LEFT, y=HEIGHT - 6),
        tag("text", f"{end:,} steps", x=WIDTH - RIGHT, y=HEIGHT - 6, text_anchor="end"),
        tag("path", d=path(curve.values), class_="raw"),
        tag("path", d=path(smooth), class_="line"),
        tag("circle", cx=f"{x(end):.1f}", cy=f"{y(smooth[-1]):.1f}", r=3, class_="end"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=summary,
    )
    return tag(
        "figure",
        tag("figcaption", tag("b", label), tag("span", f"{short(curve.first)} → ", tag("b", short(curve.final)))),
        drawing,
        class_="curve",
    )


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Two to five round levels that lie in a range and nearly span it."""
    if not high > low:
        return (low,)
    rough = (high - low) / 4
    unit: float = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(step * number for number in range(first, last + 1)) or (low, high)


def short(value: float) -> str:
    """Write a number in about three digits."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000 or size < 0.001:
        return f"{value:.1e}"
    return f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 3}f}"


def _thin(values: Sequence[float], most: int = 400) -> list[float]:
    """Every n-th value and the last one: more points than pixels only make the page heavy."""
    stride = max(1, math.ceil(len(values) / most))
    kept = list(values[::stride])
    return kept if (len(values) - 1) % stride == 0 else [*kept, values[-1]]
