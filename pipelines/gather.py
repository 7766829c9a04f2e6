"""The raw items of single units found again in raw files that have grown since, by what the dataset still says of them.

A plan cuts the whole raw input as it is now. A unit that was appended, or that lies in a file with new items between the old
ones, is not in it; but the index names the keys of its records, and its commit record the ids that it rejected or tried again.
The hash in the unit's name proves that what was gathered is what was converted then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pipelines.convert import ConvertConfig, source_of
from pipelines.seen import Seen
from pipelines.source import RawItem, Unit
from shards.errors import DatasetError
from shards.index import read_index
from shards.records import RejectReason
from shards.storage import Storage
from shards.stores import open_storage
from shards.writer import UnitReport, committed_units


def gathered(config: ConvertConfig, reports: Sequence[UnitReport]) -> Mapping[str, Unit]:
    """Find the units of some commit records in the raw files as they are now.

    Args:
        config: what the dataset was made by.
        reports: of the units; where also the index of one is lost, its items are those that no other unit knows.

    Returns:
        Every unit by its id, with its items in the order of the raw files.

    Raises:
        DatasetError: the items of a unit are not there any more, or have changed.
    """
    if not reports:
        return {}
    storage, target = open_storage(config.output), config.target()
    claims = _Claims(storage, reports)
    for number, item in enumerate(source_of(config).items(check_media=False)):
        claims.offer(number, item, target.key(item["stem"]))
    digest = config.digest()
    units = {}
    for report in reports:
        unit = Unit(index=report.index, items=claims.items_of(report), retry=report.retried is not None)
        if unit.id(digest) != report.unit:
            raise DatasetError(
                f"{config.output}: the {report.raw_items:,} raw items of {report.shard} are not in these raw files, or not as they "
                "were; bring back the files of that time, or make the dataset again in another `output`"
            )
        units[report.unit] = unit
    return units


_Numbered = tuple[int, RawItem]  # an item with its place in the raw files
_REPEATED: RejectReason = "duplicate_id"


class _Claims:
    """Which of the raw items that pass by belongs to which of some units."""

    def __init__(self, storage: Storage, reports: Sequence[UnitReport]) -> None:
        self._items: dict[str, list[_Numbered]] = {report.unit: [] for report in reports}
        self._by_key: dict[str, str] = {}
        self._by_reject: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)  # raw id to (reason, unit)
        self._again: dict[str, str] = {}
        self._lost: list[UnitReport] = []  # units whose index is gone as well
        for report in sorted(reports, key=lambda report: report.index):
            if report.retried is not None:
                self._again.update(dict.fromkeys(report.retried, report.unit))
                continue
            keys = _keys(storage, report)
            if keys is None:
                self._lost.append(report)
            self._by_key.update(dict.fromkeys(keys or (), report.unit))
            for reject in report.rejects:
                if reject.level == "item":
                    self._by_reject[reject.id].append((reject.reason, report.unit))
        lost = {report.unit for report in self._lost}
        others = [report for report in committed_units(storage).values() if report.unit not in lost] if lost else []
        self._others = Seen(storage, others) if lost else None
        self._unknown: list[_Numbered] = []

    def offer(self, number: int, item: RawItem, key: str) -> None:
        """Take the next raw item, in the order of the raw files, with the key that its record would have."""
        id, reason = item["id"], item.get("problem", (None,))[0]
        if reason is None and item.get("annotations") and (again := self._again.pop(id, None)):
            self._items[again].append((number, item))
        unit = self._by_key.get(key) if reason is None else None
        if unit is None:
            # Two items of one id are told apart by what was wrong with the second of them.
            rejects = self._by_reject.get(id, ())
            unit = next((unit for why, unit in rejects if why == reason or (reason is None and why != _REPEATED)), None)
        if unit is not None:
            self._items[unit].append((number, item))
        elif self._others is not None and not self._others.units_of(item, key):
            self._unknown.append((number, item))

    def items_of(self, report: UnitReport) -> list[RawItem]:
        """What was found of a unit, when all items have passed by."""
        found = self._items[report.unit]
        first = 0
        for lost in self._lost:  # what became records follows one another, as the units do
            if lost.unit == report.unit:
                found = sorted([*found, *self._unknown[first : first + lost.records]], key=lambda numbered: numbered[0])
            first += lost.records
        return [item for _, item in found]


def _keys(storage: Storage, report: UnitReport) -> Sequence[str] | None:
    """The keys of a unit's records; None where its index is not what was committed."""
    assert report.shard is not None, "a unit without a shard cannot be damaged"
    try:
        return read_index(storage, report.shard, xxh3=report.index_xxh3).keys
    except DatasetError:
        return None
