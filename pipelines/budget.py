"""How many raw items may be lost before a run stops, counted as units finish and not by going over all of them again."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from shards.errors import BudgetError
from shards.records import Reject, RejectReason
from shards.rejects import FINAL_REASONS
from shards.writer import UnitReport

_SHOWN_REASONS = 5
_WANTED_LOSSES = frozenset({"filtered", "duplicate"})


class Allowance(Protocol):
    """The part of a conversion's config that says how much may be lost."""

    @property
    def output(self) -> str: ...
    @property
    def reject_share(self) -> float: ...
    @property
    def reject_count(self) -> int: ...


class RejectBudget:
    """What has been rejected so far. It keeps counts, one example a reason, and the ids that a later unit may try again."""

    def __init__(self, allowance: Allowance, *, total: int) -> None:
        """Args:
        allowance: more than `reject_share` of all items and more than `reject_count` of them are too many.
        total: raw items of the whole run, so that a bad first unit does not stop a good dataset.
        """
        self._allowance = allowance
        self._total = total
        self._rejected: Counter[RejectReason] = Counter()
        self._examples: dict[
            RejectReason, tuple[int, Reject]
        ] = {}  # with the number of its unit: the first, however they finish
        self._mendable: dict[str, RejectReason] = {}

    def note(self, report: UnitReport) -> None:
        """Count what became of a unit; one that tried items again takes their earlier rejects back."""
        for id in report.retried or ():
            earlier = self._mendable.pop(id, None)
            if earlier is not None:
                self._rejected[earlier] -= 1
        for reject in report.rejects:
            if reject.level != "item":
                continue
            self._rejected[reject.reason] += 1
            if reject.reason not in FINAL_REASONS:
                self._mendable[reject.id] = reject.reason
            if reject.reason not in self._examples or report.index < self._examples[reject.reason][0]:
                self._examples[reject.reason] = (report.index, reject)

    def check(self) -> None:
        """Stop a run whose input is worse than its config allows.

        Items that a transform filtered out, or found twice, are wanted losses and do not count.

        Raises:
            BudgetError: too many items were rejected; or nothing is left at all.
        """
        bad: Counter[Any] = Counter({why: count for why, count in self._rejected.items() if why not in _WANTED_LOSSES})
        count = bad.total()
        output, total = self._allowance.output, self._total
        if count > self._allowance.reject_count and count > self._allowance.reject_share * total:
            raise BudgetError(
                f"{output}: {count:,} of {total:,} raw items were rejected ({self._told(bad)}); repair the input, or allow "
                "more with reject_share and reject_count"
            )
        if self._rejected.total() == total:
            raise BudgetError(
                f"{output}: none of {total:,} raw items became a record ({self._told(self._rejected)}); repair the input"
            )

    def _told(self, reasons: Counter[Any]) -> str:
        """The commonest reasons with their counts, and an example of the first."""
        common = [(reason, count) for reason, count in reasons.most_common(_SHOWN_REASONS) if count]
        _, example = self._examples[common[0][0]]
        shown = ", ".join(f"{reason} {count:,}" for reason, count in common)
        return f"{shown}; e.g. {example.id}: {example.detail}"

    def take(self, report: UnitReport) -> None:
        """Count a unit that has just finished. Raises `BudgetError` as `check` does."""
        self.note(report)
        self.check()
