"""Histograms: every value is in exactly one bar, the edges are round, and odd values can be drawn."""

from __future__ import annotations

import re

import numpy as np
import pytest

from jobs.report.histograms import MOST_BINS, bins_of, draw_histogram, draw_ranking

GENERATOR = np.random.default_rng(3)
SPREADS = {
    "one value": [7.0],
    "two far apart": [0.001, 1e6],
    "all the same": [3.5] * 9,
    "small counts": [float(n) for n in GENERATOR.integers(1, 9, 200)],
    "sizes": [float(n) for n in GENERATOR.integers(64, 4000, 500)],
    "shares": list(GENERATOR.random(300)),
    "negative": list(GENERATOR.normal(size=300)),
    "long tail": [*GENERATOR.random(990), *(1000 + GENERATOR.random(5))],
}


@pytest.mark.parametrize("values", SPREADS.values(), ids=SPREADS)
def test_every_value_is_in_the_bin_that_holds_it(values: list[float]) -> None:
    bins = bins_of(values)
    assert sum(bins.counts) == len(values)
    assert 1 <= len(bins.counts) <= MOST_BINS
    assert len(bins.edges) == len(bins.counts) + 1
    for number, count in enumerate(bins.counts):
        low, high = bins.edges[number], bins.edges[number + 1]
        slack = 1e-6 * max(1.0, abs(high))
        last = number == len(bins.counts) - 1 and bins.open_end
        inside = [v for v in values if v >= low - slack and (last or v <= high + slack)]
        assert count <= len(inside)


def test_counts_of_few_things_have_a_bar_for_each_number() -> None:
    bins = bins_of([1.0, 1.0, 2.0, 5.0])
    assert bins.whole
    assert bins.counts == (2, 1, 0, 0, 1)
    assert bins.edges[0] == 1


def test_a_few_values_far_out_do_not_squeeze_all_others_into_one_bar() -> None:
    bins = bins_of(SPREADS["long tail"])
    assert bins.open_end
    assert sum(count > 0 for count in bins.counts) > MOST_BINS // 3
    assert "and more" in draw_histogram("Words", SPREADS["long tail"], unit="")


@pytest.mark.parametrize("values", SPREADS.values(), ids=SPREADS)
def test_a_drawing_stays_in_its_frame_and_names_no_impossible_number(values: list[float]) -> None:
    drawing = draw_histogram("Sizes", values, unit="px")
    assert "nan" not in drawing
    frame = [float(number) for number in re.findall(r' (?:x|x1|x2|y|y1|y2)="([-0-9.]+)"', drawing)]
    assert min(frame) >= 0
    assert max(frame) <= 320
    assert len(re.findall('class="bin"', drawing)) == sum(count > 0 for count in bins_of(values).counts)


def test_a_ranking_lists_the_most_frequent_first_and_says_how_many_there_are() -> None:
    drawing = draw_ranking("Labels", {f"thing {n:02d}": 50 - n for n in range(40)} | {"<dog>": 99}, most=30)
    assert re.findall(r"<li[^>]*><span>(.*?)</span>", drawing)[:2] == ["&lt;dog&gt;", "thing 00"]
    assert drawing.count("<li") == 30
    assert "41 different, the first 30" in drawing
