"""Views: the items of a dataset that a rule chooses, or that a column repeats; nothing is rewritten, and the order stays closed.

A view is a stack of bitmaps, 12.5 MB per hundred million items. It is worked out once from the columns, kept in the dataset's
folder under the digest of all that decides it, and read from there afterwards.
"""

from __future__ import annotations

import io
import logging
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

from shards.bitmap import Bitmap, Visits
from shards.config import digest
from shards.errors import ConfigError, DatasetError
from shards.reader import Dataset
from shards.rules import Condition, Count, Lookup, chosen, parse_rule

logger = logging.getLogger(__name__)

_SCHEMA = 1
_THREADS = 4  # that read columns; most of it is decompressing, which holds no lock
_MOST_VISITS = 64  # of an item in one epoch: more would be a mistake in the column
_TOLD_AFTER_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What an epoch visits of each shard."""

    digest: str  # of the chosen items and their number of visits
    visits: Visits

    @property
    def sizes(self) -> tuple[int, ...]:
        """Visits per shard."""
        return tuple(self.visits.sizes.tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRule:
    """What decides a view; with nothing set, it is the whole dataset.

    Attributes:
        where: conditions, see `shards.rules.parse_rule`.
        select: a sidecar with a field of truth values, per record or per annotation.
        repeat: a field of numbers from 0: how often an epoch visits an item. Fractions are dealt out evenly along a shard, so
            that a shard is visited as often as its numbers add up to.
    """

    where: str | None = None
    select: str | None = None
    repeat: str | None = None

    def __bool__(self) -> bool:
        return any((self.where, self.select, self.repeat))

    def __str__(self) -> str:
        named = (("where", self.where), ("select", self.select), ("repeat", self.repeat))
        return ", ".join(f"{name}={value!r}" for name, value in named if value)


def open_view(dataset: Dataset, count: Count, rule: ViewRule) -> View:
    """Work out a view, or read it where it was worked out before.

    Args:
        dataset: as the stream reads it.
        count: what the stream counts.
        rule: what is chosen.

    Raises:
        ConfigError: the rule cannot be read, fits no column, or chooses nothing.
        DatasetError: a sidecar is missing or does not fit the dataset.
    """
    conditions = parse_rule(" and ".join(filter(None, (rule.select, rule.where)))) if rule.select or rule.where else ()
    names = {condition.name for condition in conditions} | ({rule.repeat} if rule.repeat else set())
    look_up = Lookup(dataset, sorted(names))
    decided_by = [_SCHEMA, dataset.digest, count, rule.where, rule.select, rule.repeat, look_up.folders]
    path = f"views/{digest(decided_by)}.npz"
    try:
        visits = _decode(dataset.storage.read(path), where=dataset.storage.path(path))
    except FileNotFoundError:
        visits = Visits.of(list(_visits(dataset, count, conditions, rule.repeat, look_up)))
        try:
            dataset.storage.create(path, _encode(visits))
        except OSError as problem:  # a dataset that may only be read: every start works its views out anew
            logger.info("%s: the view is not kept (%s)", dataset.path, problem)
    if not visits.sizes.sum():
        raise ConfigError(f"{dataset.path}: nothing of it is left by {rule}; loosen the rule")
    return View(digest=_content(visits), visits=visits)


def _visits(
    dataset: Dataset, count: Count, conditions: tuple[Condition, ...], repeat: str | None, look_up: Lookup
) -> Iterator[npt.NDArray[np.int64]]:
    """How often an epoch visits each item: one array (items,) per shard."""

    def of_shard(shard: int) -> npt.NDArray[np.int64]:
        index = dataset.index(shard)
        visits = chosen(conditions, look_up, index, shard, count).astype(np.int64)
        if repeat is None:
            return visits
        known = look_up(repeat, shard)
        if known.by_annotation and count == "records":
            raise ConfigError(
                f"repeat={repeat!r} has a number per annotation, but records are counted; use one per record"
            )
        numbers = known.values.astype(np.float64)
        if count == "annotations" and not known.by_annotation:
            numbers = np.repeat(numbers, index.annotations)
        return visits_of(np.where(visits > 0, numbers, 0.0), where=f"{dataset.path}: {repeat} of {index.name}")

    began, shards = time.monotonic(), len(dataset.manifest)
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(of_shard, range(shards))
    seconds = time.monotonic() - began
    if seconds > _TOLD_AFTER_S:
        logger.info(
            "%s: worked out a view of %d shards in %.0f s; it is kept for the next time", dataset.path, shards, seconds
        )


def visits_of(numbers: npt.NDArray[np.float64], *, where: str) -> npt.NDArray[np.int64]:
    """Round numbers of visits so that those of any stretch add up to their sum, to within one: (items,) → (items,).

    Raises:
        DatasetError: a number is missing, below 0 or above what can be meant.
    """
    if not np.all((numbers >= 0) & (numbers <= _MOST_VISITS)):
        raise DatasetError(f"{where}: numbers of visits must lie between 0 and {_MOST_VISITS}, with none missing")
    # Rounded up to a grain far below any meaning, so that ten times 0.1 is one.
    sums = np.concatenate([[0.0], np.cumsum(numbers)]) + 1e-9
    return np.diff(np.floor(sums)).astype(np.int64)


def _encode(visits: Visits) -> bytes:
    sink = io.BytesIO()
    layers = {f"bits{number}": layer.bits for number, layer in enumerate(visits.layers)}
    np.savez(sink, starts=visits.layers[0].starts, allow_pickle=False, **layers)
    return sink.getvalue()


def _decode(data: bytes, *, where: str) -> Visits:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            layers = [stored[f"bits{number}"] for number in range(len(stored.files) - 1)]
            return Visits([Bitmap(bits, stored["starts"]) for bits in layers])
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as problem:
        raise DatasetError(f"{where} is damaged ({problem}); remove it, and it is worked out again") from problem


def _content(visits: Visits) -> str:
    hasher = xxhash.xxh3_64()
    for layer in visits.layers:
        hasher.update(layer.sizes.tobytes())
        hasher.update(layer.bits.tobytes())
    return hasher.hexdigest()
