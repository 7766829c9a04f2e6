"""The contract of a transform: one record in; the record, a thinner one or a reject out; and the ledger that sees to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from shards.records import Record, Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinned:
    """A record that lost some of its annotations, with one annotation-level reject for each of them."""

    record: Record
    rejects: tuple[Reject, ...]


class Transform(Protocol):
    """One step between reading and writing. Built from its own `Config` (one module in `pipelines/transforms/`)."""

    def __call__(self, record: Record) -> Record | Thinned | Reject: ...


class Survey(Protocol):
    """A transform that must know the whole dataset: it looks at every record first, and decides once, over all of them.

    What `build` gives is not yet a transform; `informed` makes it one, unit by unit.
    """

    def look(self, record: Record) -> Mapping[str, Any]:
        """What the decision needs to know of one record: flat, numbers and texts only; runs on the workers."""
        ...

    def decide(self, looks: Iterable[tuple[str, Mapping[str, Any]]]) -> Mapping[str, str]:
        """The keys of the records that go, and why.

        Args:
            looks: key and look of every record, in the order of the dataset. The decision must depend on nothing else.
        """
        ...

    def informed(self, verdicts: Mapping[str, str]) -> Transform:
        """The transform for one unit, with the verdicts on its records."""
        ...


def transformed(record: Record, transforms: Sequence[Transform]) -> Iterator[Record | Reject]:
    """Send a record through a chain; a record whose annotations are all gone becomes a reject for the last reason."""
    for transform in transforms:
        result = transform(record)
        if isinstance(result, Reject):
            yield replace(result, annotations=len(record.annotations))
            return
        if isinstance(result, Thinned):
            yield from result.rejects
            if not result.record.annotations:
                last = result.rejects[-1]
                yield Reject(id=record.origin.id, reason=last.reason, detail="no annotation is left")
                return
            record = result.record
        else:
            record = result
    yield record
