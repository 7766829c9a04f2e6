"""The reject budget, unit by unit: what counts, what does not, and what a second try takes back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipelines.budget import RejectBudget
from shards.errors import BudgetError
from shards.records import Reject, RejectReason
from shards.writer import UnitReport

ALLOWANCE = SimpleNamespace(output="out", reject_share=0.1, reject_count=3)


def report(index: int, reasons: dict[str, RejectReason], *, retried: tuple[str, ...] | None = None) -> UnitReport:
    rejects = tuple(Reject(id=id, reason=reason, detail=f"unit {index}") for id, reason in reasons.items())
    return UnitReport(
        unit=f"u{index}",
        index=index,
        records=0,
        annotations=0,
        bytes=0,
        raw_items=10,
        raw_annotations=0,
        rejects=rejects,
        config_digest="c",
        annotation_types={},
        media_kinds={},
        licences={},
        retried=retried,
    )


def test_a_run_stops_at_the_first_unit_that_is_too_much_and_names_the_first_example() -> None:
    budget = RejectBudget(ALLOWANCE, total=30)
    budget.take(report(2, {"a": "not_media", "b": "not_media"}))
    budget.take(report(1, {"c": "not_media"}))
    with pytest.raises(
        BudgetError, match=r"4 of 30 raw items were rejected \(not_media 3, zero_size 1; e\.g\. c: unit 1\)"
    ):
        budget.take(report(0, {"d": "zero_size"}))


def test_a_share_that_is_small_in_the_whole_run_is_allowed() -> None:
    RejectBudget(ALLOWANCE, total=50).take(report(0, dict.fromkeys("abcde", "not_media")))


def test_wanted_losses_do_not_count_unless_nothing_is_left() -> None:
    budget = RejectBudget(ALLOWANCE, total=12)
    budget.take(report(0, dict.fromkeys("abcdef", "filtered")))
    with pytest.raises(BudgetError, match=r"none of 12 raw items became a record \(filtered 6, duplicate 6; e\.g\. "):
        budget.take(report(1, dict.fromkeys("ghijkl", "duplicate")))


def test_items_tried_again_count_by_their_last_outcome() -> None:
    budget = RejectBudget(ALLOWANCE, total=20)
    budget.note(report(0, dict.fromkeys("abcd", "missing_media")))
    budget.note(report(1, {"d": "not_media"}, retried=("a", "b", "c", "d")))
    budget.check()
    with pytest.raises(BudgetError, match=r"\(not_media 4; e\.g\. d: unit 1"):
        budget.take(report(2, dict.fromkeys("efg", "not_media")))
