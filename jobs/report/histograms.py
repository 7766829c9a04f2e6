"""Histograms as inline SVG and rankings as bars, in the manner of the curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jobs.report.curves import HEIGHT, LEFT, RIGHT, TOP, WIDTH, short, ticks
from jobs.report.markup import Markup, join, tag
from jobs.report.overlays import clipped

MOST_BINS = 24
_FLOOR = HEIGHT - 22
_TAIL = 0.99  # the share of the values that the bins span where a few lie very far out


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """Counts between evenly spaced edges; the last bin also holds all that lies beyond it where `open_end` says so."""

    edges: tuple[float, ...]  # one more than counts
    counts: tuple[int, ...]
    open_end: bool
    whole: bool  # each bin is one whole number, written under it


def bins_of(values: Sequence[float]) -> Bins:
    """Sort finite values, at least one, into at most `MOST_BINS` bins with round edges."""
    found = np.sort(np.asarray(values, dtype=np.float64))
    low, high = float(found[0]), float(found[-1])
    bulk = float(np.quantile(found, _TAIL))
    open_end = high - low > 3 * max(bulk - low, 1e-12) and bulk > low
    top = bulk if open_end else high
    if np.all(found == np.floor(found)) and top - low < MOST_BINS:
        start, step, count = low, 1.0, math.floor(top) - int(low) + 1
        whole = True
    elif top == low:
        start, step, count, whole = low, max(abs(low), 1.0), 1, False
    else:
        rough = (top - low) / (MOST_BINS - 2)
        unit: float = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
        start = math.floor(low / step + 1e-9) * step
        count = math.floor((top - start) / step + 1e-9) + 1
        whole = False
    places = np.clip(np.floor((found - start) / step + 1e-9), 0, count - 1).astype(int)
    counts = np.bincount(places, minlength=count)
    edges = tuple(start + step * number for number in range(count + 1))
    return Bins(edges=edges, counts=tuple(counts.tolist()), open_end=open_end, whole=whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Some of the values of a histogram, drawn in full colour before the others."""

    marked: tuple[bool, ...]  # of each value
    name: str  # of those that are marked
    cut: float | None = None  # from which values are marked, where one number says it


def draw_histogram(title: str, values: Sequence[float], *, unit: str, split: Split | None = None) -> Markup:
    """Draw how finite values, at least one, are spread: name, median, bars, and a word where the last bar is open."""
    bins = bins_of(values)
    marked = _marked(values, bins, split)
    median = float(np.median(np.asarray(values, dtype=np.float64)))
    most = max(bins.counts)
    room = (WIDTH - LEFT - RIGHT) / len(bins.counts)
    low, high = min(values), max(values)

    def y(count: float) -> float:
        return TOP + (_FLOOR - TOP) * (1 - count / most)

    grid = [
        join(
            [
                tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y(level):.1f}", y2=f"{y(level):.1f}", class_="grid"),
                tag("text", plain(level), x=LEFT - 6, y=f"{y(level) + 3.5:.1f}", text_anchor="end"),
            ]
        )
        for level in ticks(0, most)
        if level == int(level)
    ]
    gap = min(1.5, room * 0.15)
    bars = [
        tag(
            "rect",
            tag(
                "title",
                f"{_span(bins, number, unit)}: {count:,}{f', {marked[number]:,} of them {split.name}' if split else ''}",
            ),
            x=f"{LEFT + room * number + gap / 2:.1f}",
            # A bin that holds anything is seen, however tall the others are.
            y=f"{min(y(count), _FLOOR - 1):.1f}",
            width=f"{max(room - gap, 0.5):.1f}",
            height=f"{max(_FLOOR - y(count), 1):.1f}",
            class_="bin rest" if split else "bin",
        )
        for number, count in enumerate(bins.counts)
        if count
    ]
    bars += [
        tag(
            "rect",
            x=f"{LEFT + room * number + gap / 2:.1f}",
            y=f"{y(count):.1f}",
            width=f"{max(room - gap, 0.5):.1f}",
            height=f"{_FLOOR - y(count):.1f}",
            class_="bin marked",
        )
        for number, count in enumerate(marked)
        if count
    ]
    measured = f" {unit}" if unit else ""
    summary = f"{title}: {len(values):,} values from {plain(low)} to {plain(high)}{measured}, half of them up to {plain(median)}"
    drawing = tag(
        "svg",
        tag("title", summary),
        *grid,
        *bars,
        _cut_line(bins, room, split.cut) if split and split.cut is not None else None,
        *_axis(bins, room, unit),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=summary,
    )
    told = tag(
        "span", "median ", tag("b", plain(median)), f" {unit}" if unit else None, f" · {plain(low)} to {plain(high)}"
    )
    return tag("figure", tag("figcaption", tag("b", title), told), drawing, _legend(split), class_="curve")


def draw_ranking(title: str, counts: Mapping[str, int], *, most: int = 30) -> Markup:
    """Draw how often each word occurs as bars, the most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    top = ranked[0][1]
    bars = [
        tag(
            "li",
            tag("span", clipped(name, 60)),
            tag("span", f"{count:,}", class_="score"),
            style=f"--share:{100 * count / top:.1f}%",
        )
        for name, count in ranked[:most]
    ]
    told = f"{len(ranked):,} different" + (f", the first {most}" if len(ranked) > most else "")
    return tag(
        "figure",
        tag("figcaption", tag("b", title), tag("span", told)),
        tag("ol", *bars, class_="ranking"),
        class_="curve" if len(ranked) <= 8 else "curve long",
    )


def plain(value: float) -> str:
    """Write a number as short as it is clear: whole numbers whole, others in about three digits."""
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else short(value)


def _marked(values: Sequence[float], bins: Bins, split: Split | None) -> tuple[int, ...]:
    """How many values of each bin are marked."""
    if split is None:
        return ()
    chosen = np.asarray(values, np.float64)[np.asarray(split.marked, np.bool_)]
    places = np.searchsorted(
        np.asarray(bins.edges[1:-1]), chosen + 1e-9 * (bins.edges[1] - bins.edges[0]), side="right"
    )
    return tuple(np.bincount(places, minlength=len(bins.counts)).tolist())


def _cut_line(bins: Bins, room: float, cut: float) -> Markup | None:
    place = (cut - bins.edges[0]) / (bins.edges[1] - bins.edges[0])
    if not 0 <= place <= len(bins.counts):
        return None
    x = f"{LEFT + room * place:.1f}"
    at_left = place > len(bins.counts) / 2
    label = tag(
        "text", f"cut {plain(cut)}", x=x, y=TOP + 2, dx=-4 if at_left else 4, text_anchor="end" if at_left else "start"
    )
    return join([tag("line", x1=x, x2=x, y1=TOP - 6, y2=_FLOOR, class_="cut"), label])


def _legend(split: Split | None) -> Markup | None:
    if split is None:
        return None
    whole = sum(split.marked)
    cut = "" if split.cut is None else f", from {plain(split.cut)} on"
    return tag(
        "p", tag("span", class_="key marked"), f" {split.name}{cut}: {whole:,} of {len(split.marked):,}", class_="quiet"
    )


def _axis(bins: Bins, room: float, unit: str) -> list[Markup]:
    """Numbers under the bars: under their middle where a bar is one number, else under the edges between them."""
    count = len(bins.counts)
    stride = max(1, math.ceil(count / 6))
    end = "+" if bins.open_end else ""
    if bins.whole:
        marks = [(number + 0.5, bins.edges[number]) for number in range(0, count, stride)]
    else:
        marks = [(number, bins.edges[number]) for number in range(0, count + 1, stride)]
    drawn = []
    for place, value in marks:
        x = LEFT + room * place
        anchor = "end" if x > WIDTH - 24 else "middle"
        last = end if value >= bins.edges[-2] else ""
        drawn.append(tag("text", f"{plain(value)}{last}", x=f"{x:.1f}", y=HEIGHT - 6, text_anchor=anchor))
    return drawn


def _span(bins: Bins, number: int, unit: str) -> str:
    start, end = bins.edges[number], bins.edges[number + 1]
    if bins.open_end and number == len(bins.counts) - 1:
        return f"{plain(start)}{f' {unit}' if unit else ''} and more"
    return (plain(start) if bins.whole else f"{plain(start)} to {plain(end)}") + (f" {unit}" if unit else "")
