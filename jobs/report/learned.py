"""What columns beside a dataset say about its records: concepts, similarities, what a filter keeps, wrong captions.

A column that is not there, not finished or damaged leaves its part of the page out; `verify` and the verb that makes it say more.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shards.errors import DatasetError
from shards.reader import Dataset
from shards.sidecar import Sidecar

logger = logging.getLogger(__name__)

NEGATIVES, SWAPS, SIMILARITY, POOLS = "negatives", "swaps", "similarity", "pools"


@dataclass(frozen=True, slots=True, kw_only=True)
class HardCaption:
    """A caption of another picture that CLIP finds near this one."""

    text: str
    score: float
    source: str  # key of the record that it belongs to


@dataclass(frozen=True, slots=True, kw_only=True)
class SwappedCaption:
    """A caption made wrong by an exchange of words."""

    text: str
    annotation: int  # number of the right one among the record's annotations
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What the columns say about one record; whatever has no column is empty."""

    concepts: Mapping[str, float] = field(default_factory=dict)  # with their scores, best first
    similarities: tuple[float | None, ...] = ()  # of each annotation with the picture
    kept: tuple[bool, ...] = ()  # by the filter, of each annotation
    hard: tuple[HardCaption, ...] = ()
    swaps: tuple[SwappedCaption, ...] = ()


class LearnedColumns:
    """The columns of one dataset that a page shows.

    Attributes:
        concepts: the column of concepts; None where there is none.
        similarity: the cosine of each caption with its picture.
        hard: the captions of others.
        swaps: captions with words exchanged.
        pools: what negatives are drawn from.
        filters: every column of kept captions.
        others: columns of the same names that are not shown, as `name-digest8`.
    """

    def __init__(self, dataset: Dataset, *, concepts: str) -> None:
        """Args:
        dataset: whose columns are read.
        concepts: the column of concepts, by name or by name and digest.
        """
        found = list(_columns(dataset))
        self.filters = tuple(each for each in found if "by" in _rule(each))
        named = [each for each in found if each not in self.filters]
        self.concepts, more = _first(named, concepts)
        self.others: tuple[str, ...] = more
        self.similarity, more = _first(named, SIMILARITY)
        self.hard, self.swaps, self.pools = (_first(named, name)[0] for name in (NEGATIVES, SWAPS, POOLS))
        for name in (SIMILARITY, NEGATIVES, SWAPS, POOLS):
            self.others += _first(named, name)[1]

    def of(self, shard: int, key: str) -> Learned:
        """Read what the columns say about a record."""
        concepts, similarity, hard, swaps = (
            _row(column, shard, key) for column in (self.concepts, self.similarity, self.hard, self.swaps)
        )
        kept = _row(self.filters[0], shard, key) if self.filters else {}
        return Learned(
            concepts=dict(zip(concepts.get("phrases", ()), map(float, concepts.get("scores", ())), strict=True)),
            similarities=tuple(similarity.get(SIMILARITY, ())),
            kept=tuple(kept.get("keep", ())),
            hard=tuple(
                HardCaption(text=text, score=float(score), source=source)
                for text, score, source in zip(
                    *(hard.get(name, ()) for name in ("captions", "scores", "sources")), strict=True
                )
            ),
            swaps=tuple(
                SwappedCaption(text=text, annotation=int(number), kind=kind)
                for text, number, kind in zip(
                    *(swaps.get(name, ()) for name in ("captions", "annotations", "kinds")), strict=True
                )
            ),
        )


def column_name(column: Sidecar) -> str:
    """Name and digest of a column, as streams and `report concepts=…` take it."""
    return column.folder.removeprefix("sidecars/")


def _columns(dataset: Dataset) -> list[Sidecar]:
    columns = []
    for folder in dataset.storage.folders("sidecars"):
        try:
            columns.append(Sidecar(dataset, folder))
        except DatasetError as problem:
            logger.debug("%s: a column is left out of the page (%s)", dataset.path, problem)
    return columns


def _rule(column: Sidecar) -> Mapping[str, Any]:
    rule = column.card.get("rule")
    return rule if isinstance(rule, Mapping) else {}


def _first(columns: list[Sidecar], wanted: str) -> tuple[Sidecar | None, tuple[str, ...]]:
    """The first column of a name, finished ones before others, and the names of the rest."""
    found = [each for each in columns if wanted in (each.column, column_name(each))]
    found.sort(key=lambda each: not each.is_complete)
    return (found[0] if found else None), tuple(map(column_name, found[1:]))


def _row(column: Sidecar | None, shard: int, key: str) -> Mapping[str, Any]:
    if column is None:
        return {}
    try:
        return column.row(shard, key)
    except DatasetError as problem:
        logger.debug("%s: shown without %s (%s)", key, column_name(column), problem)
        return {}
