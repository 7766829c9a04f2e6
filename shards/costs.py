"""What each item costs a model, in tokens, from the index alone; and how many items of each cost every shard holds."""

from __future__ import annotations

import contextlib
import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from shards.config import Config, digest
from shards.errors import ConfigError, DatasetError
from shards.reader import Dataset
from shards.rules import Count, Lookup
from shards.view import View

Integers = NDArray[np.int64]

_SCHEMA = 1
_PRECISION_BITS = (
    7  # costs are rounded up to so many leading bits, by less than 1.6 %, so that a shard has few different ones
)
_THREADS = 4


class TokenCost(Config):
    """An item's tokens as a sum over what the index knows of it; of a record with several texts, the longest counts."""

    fixed: float = Field(default=0.0, ge=0)
    """of every item, such as those of a picture that is always shown at one size"""
    per_character: float = Field(default=0.25, ge=0)
    """of the text: about one in four letters of English"""
    per_megapixel: float = Field(default=0.0, ge=0)
    """of the stored pictures"""
    per_frame: float = Field(default=0.0, ge=0)
    """of a clip as it is stored"""
    per_second: float = Field(default=0.0, ge=0)
    """of a clip or a sound"""
    column: str | None = None
    """a field of a sidecar that says the tokens outright, per record or per annotation; takes the place of `per_character`"""


class Costs:
    """The costs of a dataset's items as a stream sees them. Pickles to its dataset and a table of a few numbers per shard.

    Attributes:
        levels: int64 (L,), the costs that occur, increasing.
        counts: int32 (shards, L), items of each shard by cost.
    """

    def __init__(self, dataset: Dataset, count: Count, cost: TokenCost, view: View | None = None) -> None:
        """Count every shard's items by cost: once per dataset and cost, and from its folder afterwards.

        Raises:
            DatasetError: the index or the column is damaged, or the column does not fit.
        """
        self._dataset, self._count, self._cost, self._view = dataset, count, cost, view
        self._look_up = Lookup(dataset, [cost.column] if cost.column is not None else [])
        decided_by = [_SCHEMA, dataset.digest, count, cost.model_dump(), view.digest if view else None]
        path = f"views/costs-{digest([*decided_by, self._look_up.folders])}.npz"
        try:
            table = _decode(dataset.storage.read(path), where=dataset.storage.path(path))
        except FileNotFoundError:
            table = self._counted()
            with contextlib.suppress(OSError):  # a dataset that may only be read: every start counts anew
                dataset.storage.create(path, _encode(*table))
        self.levels, self.counts = table

    @property
    def digest(self) -> str:
        """Of the cost and what it is read from."""
        return digest([self._cost.model_dump(), self._look_up.folders])

    def of_shard(self, shard: int) -> Integers:
        """Tokens of each item of a shard, rounded up to a level: (items,), of a view: (visits,)."""
        cost, index = self._cost, self._dataset.index(shard)
        tokens = np.full(len(index), cost.fixed)
        megapixels = np.maximum(index.width, 0) * (np.maximum(index.height, 0) / 1e6)
        tokens += cost.per_megapixel * megapixels + cost.per_frame * np.maximum(index.frames, 0)
        tokens += cost.per_second * np.nan_to_num(index.duration_s)
        if cost.column is None:
            tokens += cost.per_character * index.text_length
        tokens = tokens if self._count == "records" else np.repeat(tokens, index.annotations)
        if cost.column is not None:
            tokens = tokens + self._told(cost.column, shard)
        levels = rounded_up(np.maximum(np.ceil(tokens - 1e-9), 1).astype(np.int64))
        return levels if self._view is None else levels[self._view.visits.items(shard)]

    def _told(self, column: str, shard: int) -> NDArray[np.float64]:
        known, index = self._look_up(column, shard), self._dataset.index(shard)
        values = known.values.astype(np.float64)
        if not np.all(values >= 0):
            raise DatasetError(
                f"{self._dataset.path}: {column} of {index.name} has a number of tokens that is missing or below 0"
            )
        if self._count == "annotations":
            return values if known.by_annotation else np.repeat(values, index.annotations)
        if known.by_annotation:
            raise ConfigError(
                f"tokens.column={column!r} counts per annotation, but the task reads records; use one per record"
            )
        return values

    def _counted(self) -> tuple[Integers, NDArray[np.int32]]:
        def of_shard(shard: int) -> tuple[Integers, Integers]:
            return np.unique(self.of_shard(shard), return_counts=True)

        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(of_shard, range(len(self._dataset.manifest))))
        levels = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *(values for values, _ in found)]))
        counts = np.zeros((len(found), len(levels)), dtype=np.int32)
        for shard, (values, numbers) in enumerate(found):
            counts[shard, np.searchsorted(levels, values)] = numbers
        return levels, counts


def rounded_up(tokens: Integers) -> Integers:
    """Round costs up to a few leading bits: exact up to 128, by less than 1.6 % above; (items,) → (items,)."""
    grain = np.int64(1) << np.maximum(0, np.frexp(tokens.astype(np.float64))[1].astype(np.int64) - _PRECISION_BITS)
    rounded: Integers = -(-tokens // grain) * grain
    return rounded


def _encode(levels: Integers, counts: NDArray[np.int32]) -> bytes:
    sink = io.BytesIO()
    np.savez_compressed(sink, levels=levels, counts=counts)
    return sink.getvalue()


def _decode(data: bytes, *, where: str) -> tuple[Any, Any]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return stored["levels"], stored["counts"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as problem:
        raise DatasetError(f"{where} is damaged ({problem}); remove it, and it is counted again") from problem
