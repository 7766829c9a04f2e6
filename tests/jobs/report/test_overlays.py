"""Boxes over pictures: drawn in the pixels of the picture, labelled where there is room."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from jobs.report.overlays import LETTERS, MOST_BOXES, Marked, clipped, overlay, shown_size


def drawn(boxes: list[Marked], *, width: float = 640, height: float = 480) -> ElementTree.Element:
    return ElementTree.fromstring(overlay(boxes, width=width, height=height))


def marked(x0: float, y0: float, x1: float, y1: float, label: str = "dog") -> Marked:
    return Marked(box=(x0, y0, x1, y1), label=label, colour="#123456")


def plates(svg: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    """Corners of what lies under the labels."""
    found = [rect for rect in svg.iter("rect") if rect.get("rx")]
    spots = [[float(rect.get(name) or 0) for name in ("x", "y", "width", "height")] for rect in found]
    return [(x, y, x + wide, y + high) for x, y, wide, high in spots]


def test_a_box_lies_where_the_record_says_in_pixels_of_the_picture() -> None:
    svg = drawn([marked(10, 20, 110.5, 70)])
    box = next(rect for rect in svg.iter("rect") if rect.get("class") == "box")
    assert svg.get("viewBox") == "0 0 640 480"
    assert [box.get(name) for name in ("x", "y", "width", "height")] == ["10", "20", "100.5", "50"]
    assert box.get("stroke") == "#123456"


@pytest.mark.parametrize(("width", "height"), [(64, 48), (4000, 3000), (300, 2000)])
def test_a_label_is_as_large_on_the_page_whatever_the_picture_is(width: float, height: float) -> None:
    svg = drawn([marked(0, height / 3, width, height / 2, "")], width=width, height=height)
    assert not list(svg.iter("text"))
    svg = drawn([marked(0, height / 3, width, height / 2, "a")], width=width, height=height)
    letters = float(next(svg.iter("text")).get("font-size") or 0)
    assert letters * shown_size(width, height)[0] / width == pytest.approx(LETTERS, rel=0.06)


def test_labels_stay_inside_the_picture_and_never_lie_over_each_other() -> None:
    crowd = [
        marked(30.0 * n % 600, 17.0 * n % 440, 30.0 * n % 600 + 40, 17.0 * n % 440 + 40, "person") for n in range(50)
    ]
    spots = plates(drawn(crowd))
    assert len(spots) > 5
    assert all(x0 >= 0 and y0 >= 0 and x1 <= 640.1 and y1 <= 480.1 for x0, y0, x1, y1 in spots)
    for number, (ax0, ay0, ax1, ay1) in enumerate(spots):
        for bx0, by0, bx1, by1 in spots[number + 1 :]:
            assert ax1 <= bx0 + 0.1 or bx1 <= ax0 + 0.1 or ay1 <= by0 + 0.1 or by1 <= ay0 + 0.1


def test_only_so_many_boxes_are_drawn_and_long_labels_are_cut() -> None:
    svg = drawn([marked(n, n, n + 5, n + 5, "word " * 30) for n in range(MOST_BOXES + 20)])
    assert len([rect for rect in svg.iter("rect") if rect.get("class") == "box"]) == MOST_BOXES
    assert all(len(text.text or "") <= 24 for text in svg.iter("text"))
    assert clipped("abcdef", 4) == "abc…"
    assert clipped("abcd", 4) == "abcd"


def test_markup_in_a_label_is_shown_and_not_obeyed() -> None:
    page = overlay([marked(100, 100, 300, 300, "<b>&")], width=640, height=480)
    assert "<b>" not in page
    assert re.search("&lt;b&gt;&amp;</text>", page)
