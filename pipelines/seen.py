"""What a dataset knows of raw items: which of its units hold one, and whether they are still what was converted.

Nothing is stored for this beside what is there anyway. The index names the keys of records, the commit record names its rejects,
and the name of a unit is a hash of its items: what comes by now is hashed once more, unit by unit.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xxhash

from pipelines.units import RawItem, as_line, unit_id
from shards.index import read_index
from shards.records import Reject, RejectReason
from shards.storage import Storage
from shards.writer import UnitReport

_Trace = Literal["record", "reject", "repeat", "again"]  # what a unit keeps of an item; `again`: it was tried once more
_REPEATED: RejectReason = "duplicate_id"


class Seen:
    """Which units hold a raw item, in 20 bytes an item, so that ten million of them still fit."""

    def __init__(self, storage: Storage, reports: Sequence[UnitReport]) -> None:
        """Args:
        storage: the dataset.
        reports: the commit records of the units, in their order.
        """
        parts = [np.empty((0, 2), dtype=np.uint64)]
        for report in reports:
            halves = [_halves(trace) for trace in _traces(storage, report)]
            parts.append(np.array(halves, dtype=np.uint64).reshape(-1, 2))
        both = np.concatenate(parts)
        order = np.lexsort((both[:, 1], both[:, 0]))  # stable: units stay in their order among equals
        self._first, self._second = both[order, 0], both[order, 1]
        self._units = np.repeat(np.arange(len(reports), dtype=np.int32), [len(part) for part in parts[1:]])[order]

    def units_of(self, item: RawItem, key: str) -> tuple[int, ...]:
        """The numbers of the units that hold an item, whose record has or would have this key; several where it was tried again.

        An id that was given to several items is in the units of all those that are rejects for it.
        """
        id, reason = item["id"], item.get("problem", (None,))[0]
        order: tuple[_Trace, ...] = ("record", "reject", "repeat")
        if reason is not None:
            order = ("repeat", "reject", "record") if reason == _REPEATED else ("reject", "record", "repeat")
        again = self._find("again", id)
        if again:
            return tuple(sorted({*again, *self._find("reject", id)}))
        named = {"record": key, "reject": id, "repeat": id}
        return next((found for trace in order if (found := self._find(trace, named[trace]))), ())

    def _find(self, trace: _Trace, name: str) -> tuple[int, ...]:
        high, low = _halves((trace, name))
        place = int(np.searchsorted(self._first, np.uint64(high)))
        found = []
        while place < len(self._first) and int(self._first[place]) == high:
            if int(self._second[place]) == low:
                found.append(int(self._units[place]))
            place += 1
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A unit whose raw items are not what they were, or stand in another order or place."""

    report: UnitReport
    items: int  # of it that have passed by; fewer than it had: some are gone, and of the others nothing can be told
    annotations: int  # raw annotations of these


class Recheck:
    """Compares raw items, as they pass by in the order of the raw files, with what some units were made of."""

    def __init__(self, reports: Sequence[UnitReport], *, unchanged: Collection[str]) -> None:
        """Args:
        reports: the commit records that `Seen` numbers.
        unchanged: ids of units that are known to be as they were, such as those of a plan.
        """
        self._reports = reports
        tried_again = {id for report in reports for id in report.retried or ()}
        self._hashes = {
            number: xxhash.xxh3_128()
            for number, report in enumerate(reports)
            # Of what was tried again the later unit says what it was then, and the earlier one may have had something else.
            if report.unit not in unchanged and tried_again.isdisjoint(reject.id for reject in report.rejects)
        }
        self._noted: defaultdict[tuple[int, str], list[Reject]] = defaultdict(list)
        for number in self._hashes:
            for reject in reports[number].rejects:
                self._noted[number, reject.id if reject.level == "item" else reject.item or ""].append(reject)
        self._items: Counter[int] = Counter()
        self._annotations: Counter[int] = Counter()
        self._repeats: Counter[str] = Counter()

    def pass_by(self, item: RawItem, units: Sequence[int], *, annotations: int) -> None:
        """Take the next item that some units hold.

        Args:
            item: as the raw files have it now.
            units: that `Seen.units_of` gave.
            annotations: how many raw annotations it has.
        """
        if len(units) > 1 and self._is_repeat(item):  # each of the items of an id is in a unit of its own
            number = self._repeats[item["id"]]
            self._repeats[item["id"]] += 1
            units = units[min(number, len(units) - 1) :][:1]
        for unit in units:
            found = self._hashes.get(unit)
            if found is not None:
                then = _worded(item, self._noted.get((unit, item["id"]), []))
                found.update(b"\n" * (self._items[unit] > 0) + as_line(then))
                self._items[unit] += 1
                self._annotations[unit] += annotations

    def changes(self) -> Iterator[Change]:
        """What is not as it was, when all items have passed by."""
        for number, found in self._hashes.items():
            report = self._reports[number]
            retry = report.retried is not None
            now = unit_id(report.config_digest, index=report.index, content=found.hexdigest(), retry=retry)
            if now != report.unit:
                yield Change(report=report, items=self._items[number], annotations=self._annotations[number])

    def _is_repeat(self, item: RawItem) -> bool:
        return bool(item.get("problem", (None,))[0] == _REPEATED)


def _worded(item: RawItem, noted: list[Reject]) -> RawItem:
    """The item with what is wrong in it worded as it was then: where it stands in its file may have changed, and that is no edit.

    Args:
        item: as it is now.
        noted: the rejects of the item, in their order; those that are used are taken out.
    """
    if not noted or not ("refused" in item or "problem" in item):
        return item

    def take(level: str, reason: str) -> Reject | None:
        place = next((at for at, each in enumerate(noted) if (each.level, each.reason) == (level, reason)), None)
        return None if place is None else noted.pop(place)

    then = dict(item)
    if "refused" in item:
        then["refused"] = [
            [old.id, old.reason, old.detail] if (old := take("annotation", now[1])) else now for now in item["refused"]
        ]
    if "problem" in item and (old := take("item", item["problem"][0])):
        then["problem"] = [old.reason, old.detail]
    return then


def _traces(storage: Storage, report: UnitReport) -> Iterator[tuple[_Trace, str]]:
    if report.shard is not None:
        yield from (("record", key) for key in read_index(storage, report.shard, xxh3=report.index_xxh3).keys)
    for reject in report.rejects:
        if reject.level == "item":
            yield "repeat" if reject.reason == _REPEATED else "reject", reject.id
    yield from (("again", id) for id in report.retried or ())


def _halves(trace: tuple[_Trace, str]) -> tuple[int, int]:
    """128 bits of what a unit keeps of an item. Two items with the same ones would pass for one, and the merge refuse it aloud."""
    whole = xxhash.xxh3_128_intdigest("\0".join(trace).encode("utf-8", "surrogatepass"))
    return whole >> 64, whole & 0xFFFF_FFFF_FFFF_FFFF
