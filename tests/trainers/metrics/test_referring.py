"""Overlap in both conventions, and the share of boxes that are found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.metrics.referring import CONVENTIONS, Convention, found, found_by_split, intersection_over_union, widths

sides = st.floats(0.5, 500)
boxes = st.tuples(sides, sides, sides, sides)
each_convention = pytest.mark.parametrize("convention", CONVENTIONS)


@each_convention
@given(box=boxes, other=boxes)
def test_overlap_is_symmetric_and_a_share(
    convention: Convention, box: tuple[float, ...], other: tuple[float, ...]
) -> None:
    overlap = intersection_over_union(box, other, convention=convention)
    assert overlap == pytest.approx(intersection_over_union(other, box, convention=convention))
    assert 0 <= overlap <= 1 + 1e-9


def test_a_box_of_exactly_one_half_is_found() -> None:
    box, half = (10.25, 20.0, 33.5, 44.0), (10.25, 20.0, 33.5, 22.0)
    assert intersection_over_union(box, half) == 0.5
    assert found([0.5, 0.49]) == 50


def test_one_shared_column_of_pixels_counts_only_as_an_area() -> None:
    box, neighbour = (0, 0, 10, 10), (9, 0, 10, 10)
    assert intersection_over_union(box, neighbour, convention="inclusive_pixels") == 0
    assert intersection_over_union(box, neighbour) == pytest.approx(10 / 190)


@each_convention
def test_boxes_apart_and_empty_boxes_do_not_overlap(convention: Convention) -> None:
    assert intersection_over_union((0, 0, 5, 5), (20, 20, 5, 5), convention=convention) == 0
    assert intersection_over_union((3, 3, 0, 0), (3, 3, 0, 0), convention=convention) == 0


def test_corners_become_widths() -> None:
    assert widths((1.0, 2.0, 4.0, 8.0)) == (1.0, 2.0, 3.0, 6.0)


def test_each_split_has_its_share_and_all_counts_expressions() -> None:
    assert found_by_split([("val", 0.9), ("val", 0.1), ("testA", 0.6)]) == {
        "val": 50,
        "testA": 100,
        "all": pytest.approx(200 / 3),
    }
    with pytest.raises(ValueError, match="no box"):
        found([])
