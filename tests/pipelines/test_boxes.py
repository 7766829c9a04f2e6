"""Boxes are brought into the picture that is stored, or refused by name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pipelines.boxes import BoxRule, fitted, from_corner_and_size, from_corners
from shards.media import MediaProblem
from shards.records import Caption, Detection, Grounding


def detection(*box: float, id: str | None = "7") -> Detection:
    return Detection(id=id, box=box, label="dog")  # type: ignore[arg-type]


def fit(annotations: Any, **changes: Any) -> Any:
    rule = BoxRule(**{name: changes.pop(name) for name in ("clip", "rescale") if name in changes})
    return fitted(
        tuple(annotations), **{"drawn_on": (100, 50), "stored": (100, 50), "rule": rule, "id": "p", **changes}
    )


def test_corner_and_size_become_corners_without_the_noise_of_adding() -> None:
    assert from_corner_and_size(103.93, 299.99, 134.22, 177.42, where="x") == (103.93, 299.99, 238.15, 477.41)


@pytest.mark.parametrize("raw", [("1", 2, 3, 4), (1.5, 0, 2, 3)])
def test_numbers_may_be_spelt_as_text(raw: Any) -> None:
    assert from_corner_and_size(*raw, where="x")[0] == float(raw[0])


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ((0, 0, 0, 5), "empty_box"),
        ((0, 0, 5, -1), "empty_box"),
        ((0, 0, math.nan, 5), "not_finite"),
        ((0, 0, math.inf, 5), "not_finite"),
        ((None, 0, 5, 5), "missing_field"),
        (("wide", 0, 5, 5), "missing_field"),
        ((True, 0, 5, 5), "missing_field"),
    ],
)
def test_what_is_no_box_is_refused_by_name(raw: Any, reason: str) -> None:
    for read in (from_corner_and_size, from_corners):
        with pytest.raises(MediaProblem) as problem:
            read(*raw, where="row 3")
        assert problem.value.reason == reason
        assert "row 3" in problem.value.detail


def test_a_box_inside_stays_as_it_is_and_one_that_rounding_pushed_out_ends_at_the_border() -> None:
    inside, rounded = detection(1, 2, 99, 50), detection(0, 0, 100.9, 50.5)
    kept, rejects = fit([inside, rounded])
    assert (kept[0], kept[1].box, rejects) == (inside, (0, 0, 100, 50), ())


def test_a_box_that_sticks_out_is_refused_or_cut_and_one_wholly_outside_is_always_refused() -> None:
    sticking, outside = detection(-5, 10, 20, 90, id="a"), detection(120, 0, 140, 20, id="b")
    kept, rejects = fit([sticking, outside])
    assert (kept, [(r.id, r.reason, r.level) for r in rejects]) == (
        (),
        [("a", "box_outside", "annotation"), ("b", "box_outside", "annotation")],
    )
    kept, rejects = fit([sticking, outside], clip=True)
    assert ([annotation.box for annotation in kept], [r.id for r in rejects]) == ([(0, 10, 20, 50)], ["b"])


def test_an_annotation_without_an_id_is_named_by_its_place() -> None:
    _, rejects = fit([detection(1, 1, 9, 9), detection(0, 0, 500, 9, id=None)])
    assert [reject.id for reject in rejects] == ["p#1"]


def test_boxes_follow_a_picture_of_another_size_only_where_that_is_asked_for() -> None:
    phrase = Grounding(id="1", text="the dog", box=(10, 10, 50, 50))
    with pytest.raises(MediaProblem, match="rescale_boxes"):
        fit([phrase], stored=(50, 100))
    kept, _ = fit([phrase], stored=(50, 100), rescale=True)
    assert kept[0].box == (5, 20, 25, 100)


def test_the_size_of_a_picture_without_boxes_is_nobodys_concern() -> None:
    caption = Caption(text="A dog.")
    assert fit([caption], stored=(3, 3)) == ((caption,), ())
