"""Adding to a finished dataset: which raw items are new, and which rejects deserve another try; old shards are never touched.

The card says how many units the dataset is merged from. Commit records with higher numbers belong to an addition that has not
been merged yet, so that a killed addition plans the same units again and goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import xxhash

from pipelines.convert import ConvertConfig
from pipelines.source import RawItem, Target, Unit
from shards.errors import ConfigError, DatasetError
from shards.index import read_index
from shards.manifest import entries_of, read_card
from shards.rejects import FINAL_REASONS, settle
from shards.storage import Storage
from shards.stores import open_storage
from shards.writer import CARD_PATH, UnitReport, committed_units

logger = logging.getLogger(__name__)

Addition = Literal["new", "rejects"]  # raw items that the dataset has never seen; items that it has rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one run has to bring about."""

    units: Sequence[Unit]  # to be committed by this run, as far as they are not yet
    earlier: tuple[str, ...] = ()  # ids of the units of the finished dataset that stay as they are, in order


def plan_addition(config: ConvertConfig, units: Sequence[Unit], add: Addition | None) -> Plan:
    """Turn the plan of the whole raw input into the plan of this run.

    Args:
        config: what is converted, and to where.
        units: the whole raw input as it is now.
        add: what to add to the finished dataset in `config.output`; None to make it from the start, or to find it made.

    Raises:
        ConfigError: rejects are to be tried again where there is no finished dataset.
        DatasetError: the output was made by another config, or is damaged.
    """
    storage = open_storage(config.output)
    finished = storage.exists(CARD_PATH)
    if not finished:
        if add == "rejects":
            raise ConfigError(
                f"retry=rejects: {config.output} is no finished dataset; run the same command without it first"
            )
        return Plan(units=units)
    digest = config.digest()
    base = _merged(storage, digest)
    if add is None:
        # Units that an addition brought are no part of the plan of the whole input, and nothing is wrong with them.
        planned = {unit.id(digest) for unit in units}
        additions = tuple(report.unit for report in base if report.unit not in planned)
        return Plan(units=units, earlier=additions if len(additions) == len(base) - len(planned) else ())
    target = config.target()
    every = (item for unit in units for item in unit.items)
    first = max((report.index for report in base), default=-1) + 1
    if add == "new":
        added = list(target.slice(_unseen(every, Seen(storage, list(settle(base))), target), first_index=first))
    else:
        again = target.slice(_mendable(every, base), first_index=first)
        added = [replace(unit, retry=True) for unit in again]
    return Plan(units=added, earlier=tuple(report.unit for report in base))


def _merged(storage: Storage, digest: str) -> list[UnitReport]:
    """The commit records that the finished dataset is merged from, in order."""
    card = read_card(storage)
    reports = sorted(committed_units(storage, digest).values(), key=lambda report: report.index)
    base = [report for report in reports if report.index < card.units]
    if len(base) != card.units:
        raise DatasetError(
            f"{storage.url}: {len(base)} of its {card.units} commit records are there; run `verify repair=true` before adding to it"
        )
    return base


def _unseen(items: Iterable[RawItem], seen: Seen, target: Target) -> Iterator[RawItem]:
    """The items that are neither a record nor a reject of the dataset."""
    known = annotations = 0
    for item in items:
        if seen.knows(item, target.key(item["stem"])):
            known += 1
            annotations += len(item.get("annotations", ())) + len(item.get("refused", ()))
        else:
            yield item
    if known == seen.items and annotations != seen.annotations:
        logger.warning(
            "the raw items that the dataset holds already have %d annotations now, and had %d when they were converted; their "
            "records stay as they are: attach the new ones with `annotate`, or convert everything to another `output`",
            annotations,
            seen.annotations,
        )
    if known < seen.items:
        logger.warning(
            "%d raw items of the dataset are not in the raw files any more; their records stay", seen.items - known
        )


class Seen:
    """What some units hold already. Sixteen bytes a key, so that ten million of them still fit."""

    def __init__(self, storage: Storage, base: Sequence[UnitReport]) -> None:
        self.items = sum(report.raw_items for report in base)
        self.annotations = sum(report.raw_annotations for report in base)
        self._rejects = {reject.id for report in base for reject in report.rejects if reject.level == "item"}
        pairs = [
            _hashes(read_index(storage, entry.name, xxh3=entry.index_xxh3).keys) for entry in entries_of(base)
        ] or [np.empty((0, 2), dtype=np.uint64)]
        both = np.concatenate(pairs)
        order = np.argsort(both[:, 0])
        self._first, self._second = both[order, 0], both[order, 1]

    def knows(self, item: RawItem, key: str) -> bool:
        """Whether a raw item is a record, which has this key, or a reject."""
        return item["id"] in self._rejects or self._has_key(key)

    def _has_key(self, key: str) -> bool:
        high, low = _pair(key)
        place = int(np.searchsorted(self._first, np.uint64(high)))
        # Should two keys of the dataset ever share the first half, one of them passes for new, and the merge refuses it aloud.
        return place < len(self._first) and int(self._first[place]) == high and int(self._second[place]) == low


def _hashes(keys: Sequence[str]) -> npt.NDArray[np.uint64]:
    """128 bits of each key, shape (keys, 2)."""
    return np.array([_pair(key) for key in keys], dtype=np.uint64).reshape(len(keys), 2)


def _pair(key: str) -> tuple[int, int]:
    whole = xxhash.xxh3_128_intdigest(key.encode())
    return whole >> 64, whole & 0xFFFF_FFFF_FFFF_FFFF


def _mendable(items: Iterable[RawItem], base: Sequence[UnitReport]) -> Iterator[RawItem]:
    """The items that were rejected for something that may have been mended since.

    Left out are those that were meant to be rejected, and those whose annotation file still says what was wrong with them.
    """
    wanted = {
        reject.id
        for report in settle(base)
        for reject in report.rejects
        if reject.level == "item" and reject.reason not in FINAL_REASONS
    }
    for item in items:
        if item["id"] in wanted and "problem" not in item and item.get("annotations"):
            wanted.discard(item["id"])
            yield item
    if wanted:
        logger.info("%d rejected items cannot turn out better with these raw files; they are left alone", len(wanted))
