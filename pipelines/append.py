"""Adding to a finished dataset: which raw items are new, and which rejects deserve another try; old shards are never touched.

The card says how many units the dataset is merged from. Commit records with higher numbers belong to an addition that has not
been merged yet, so that a killed addition plans the same units again and goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipelines.convert import ConvertConfig
from pipelines.seen import Change, Recheck, Seen
from pipelines.source import RawItem, Target, Unit
from shards.errors import ConfigError, DatasetError
from shards.manifest import read_card
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
    planned = {unit.id(digest) for unit in units}
    if add is None:
        # Units that an addition brought are no part of the plan of the whole input, and nothing is wrong with them.
        additions = tuple(report.unit for report in base if report.unit not in planned)
        return Plan(units=units, earlier=additions if len(additions) == len(base) - len(planned) else ())
    target = config.target()
    every = (item for unit in units for item in unit.items)
    first = max((report.index for report in base), default=-1) + 1
    if add == "new":
        unseen = _unseen(every, storage, base, target, unchanged=planned)
        added = list(target.slice(unseen, first_index=first))
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


def _unseen(
    items: Iterable[RawItem],
    storage: Storage,
    base: Sequence[UnitReport],
    target: Target,
    *,
    unchanged: Collection[str],
) -> Iterator[RawItem]:
    """The items that are neither a record nor a reject of the dataset; warns of the others where they are not what they were."""
    seen, recheck = Seen(storage, base), Recheck(base, unchanged=unchanged)
    known = 0
    for item in items:
        units = seen.units_of(item, target.key(item["stem"]))
        if units:
            known += 1
            recheck.pass_by(item, units, annotations=len(item.get("annotations", ())) + len(item.get("refused", ())))
        else:
            yield item
    _tell(list(recheck.changes()), of=len(base))
    gone = sum(report.raw_items for report in settle(base)) - known
    if gone > 0:
        logger.warning("%d raw items of the dataset are not in the raw files any more; their records stay", gone)


def _tell(changes: Sequence[Change], *, of: int) -> None:
    edited = [change for change in changes if change.items >= change.report.raw_items]
    if edited:
        logger.warning(
            "the raw items of %d of %d units are not what they were when they were converted, or stand in another order or place "
            "(the first are those of %s); they had %d annotations and have %d now; their records stay as they are: attach new "
            "annotations with `annotate`, and for everything else convert all to another `output`",
            len(edited),
            of,
            edited[0].report.shard or f"unit {edited[0].report.unit}",
            sum(change.report.raw_annotations for change in edited),
            sum(change.annotations for change in edited),
        )
    if len(edited) < len(changes):
        logger.warning(
            "%d units miss raw items, so whether their others are what they were cannot be told",
            len(changes) - len(edited),
        )


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
