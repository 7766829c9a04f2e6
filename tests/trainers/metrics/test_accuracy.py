"""Accuracy by class, and what a constant answer would reach."""

from __future__ import annotations

import pytest

from trainers.metrics.accuracy import accuracy


def test_classes_are_scored_apart_and_beside_the_commonest() -> None:
    truth = ["yes", "yes", "yes", "no"]
    assert accuracy(["yes", "no", "yes", "no"], truth) == {
        "accuracy": 75.0,
        "accuracy/no": 100.0,
        "accuracy/yes": pytest.approx(200 / 3),
        "constant": 75.0,
    }


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="0 predictions and 0 truths"):
        accuracy([], [])
    with pytest.raises(ValueError, match="1 predictions and 2 truths"):
        accuracy(["a"], ["a", "b"])
