"""Share of right classes, overall and by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def accuracy(predicted: Sequence[str], truth: Sequence[str]) -> dict[str, float]:
    """Score predicted classes.

    Args:
        predicted: one class per example.
        truth: likewise.

    Returns:
        Percentages: `accuracy`, `accuracy/<class>` of the examples of each class, and `constant`, what always saying the
        commonest class would reach.

    Raises:
        ValueError: no example, or not one truth for each.
    """
    if not truth or len(predicted) != len(truth):
        raise ValueError(f"{len(predicted)} predictions and {len(truth)} truths cannot be compared")
    counts = Counter(truth)
    right = Counter(said for said, true in zip(predicted, truth, strict=True) if said == true)
    scores = {"accuracy": 100 * right.total() / len(truth)}
    scores |= {f"accuracy/{name}": 100 * right[name] / count for name, count in sorted(counts.items())}
    return scores | {"constant": 100 * max(counts.values()) / len(truth)}
