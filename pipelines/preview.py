"""A look at what a conversion would make, without writing anything: the first records, and a guess at bytes and time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from pipelines.convert import ConvertConfig, estimate, item_count, some_items
from pipelines.source import RawItem, Source, Unit
from pipelines.sources import load_source
from pipelines.survey import chain_of
from pipelines.transform import Transform, transformed
from pipelines.transforms import load_transforms
from shards.codec import encode_record
from shards.records import Record, Reject, RejectReason

_FIRST = 12  # items that are tried until enough records have come of them
_PROBED = 24  # items, spread over the whole plan, that are read for the estimate
_TAR_OVERHEAD = 2048  # bytes of headers and padding of a record


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A record as it would lie in its shard."""

    record: Record
    members: tuple[tuple[str, bytes], ...]  # (extension, bytes), as in the tar

    @property
    def size(self) -> int:
        """Bytes of all members, without tar headers and padding."""
        return sum(len(data) for _, data in self.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The first records, and what a few items, spread over the plan, say of all."""

    records: tuple[StoredRecord, ...]
    rejects: tuple[Reject, ...]  # of the `probed` items
    probed: int
    bytes: int | None  # a guess at the dataset's size; None where nothing could be read
    seconds: float | None  # a guess at the work of one processor


def preview(config: ConvertConfig, units: Sequence[Unit], *, records: int) -> Preview:
    """Read a few items of a plan as a worker would, keep nothing.

    Args:
        config: what would be converted.
        units: the plan.
        records: how many of the first records to show.
    """
    source, _ = load_source(config.source, target=config.target())
    transforms = chain_of(load_transforms(config.transforms)).informed({})
    rejects: list[Reject] = []
    shown: list[StoredRecord] = []
    for item in islice((item for unit in units for item in unit.items), _FIRST):
        if len(shown) < records:
            shown.extend(_made(source, item, transforms, rejects))
    first_rejects = len(rejects)
    sizes: list[int] = []
    probed = 0
    # The first items have paid for what is only loaded once, so the clock starts after them.
    started = time.perf_counter()
    for item in some_items(units, _PROBED):
        sizes.extend(stored.size for stored in _made(source, item, transforms, rejects))
        probed += 1
    seconds = time.perf_counter() - started
    total = item_count(units)
    size = None if config.transforms else estimate(config, units)
    if size is None and sizes:
        size = (sum(sizes) + _TAR_OVERHEAD * len(sizes)) * total // probed
    return Preview(
        records=tuple(shown[:records]),
        rejects=tuple(rejects[first_rejects:]),
        probed=probed,
        bytes=size,
        seconds=seconds * total / probed if sizes else None,
    )


def top_rejects(rejects: Sequence[Reject]) -> tuple[tuple[RejectReason, int, Reject], ...]:
    """Rejected items by reason, the most frequent first: (reason, how many, one of them)."""
    items = [reject for reject in rejects if reject.level == "item"]
    counts = Counter(reject.reason for reject in items)
    return tuple(
        (reason, count, next(reject for reject in items if reject.reason == reason))
        for reason, count in counts.most_common()
    )


def _made(source: Source, item: RawItem, transforms: Sequence[Transform], rejects: list[Reject]) -> list[StoredRecord]:
    """What one item becomes; adds to `rejects`."""
    made: list[StoredRecord] = []
    for read in source.read(Unit(index=0, items=(item,))):
        for result in transformed(read, transforms) if isinstance(read, Record) else (read,):
            if isinstance(result, Record):
                made.append(StoredRecord(record=result, members=tuple(encode_record(result))))
            else:
                rejects.append(result)
    return made
