"""Columns learned after conversion: one Parquet per shard beside the dataset, joined by key; the shards stay as they are.

A column lives in `sidecars/<column>-<digest8>/`, where the digest names the config that made it; another vocabulary or model
writes another folder. `column.json` in the folder says what made it; whoever makes a column may keep more files there.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shards.config import canonical_json
from shards.errors import DatasetError
from shards.index import encode_parquet
from shards.reader import Dataset
from shards.storage import Storage

_CARD = "column.json"
_TABLES = 32  # parsed shards held in memory

Getter = Callable[[int], Any]


def sidecar_folder(column: str, digest8: str) -> str:
    """Where a column lies in its dataset."""
    return f"sidecars/{column}-{digest8}"


def write_sidecar(
    storage: Storage,
    *,
    column: str,
    digest8: str,
    shard: str,
    keys: Sequence[str],
    values: pa.Table,
    card: Mapping[str, Any],
) -> None:
    """Write one shard of a column. Whoever is first wins; a shard that is there already is left as it is.

    Args:
        storage: the dataset.
        column: name of the column, such as `concepts`.
        digest8: the first 8 hex digits of the digest of what makes the column.
        shard: name of the shard.
        keys: the key of every row.
        values: the columns beside the key, one row per key.
        card: what made the column; the same for every shard.

    Raises:
        DatasetError: keys and values differ in length, a key occurs twice, or the folder's card says something else.
    """
    folder = sidecar_folder(column, digest8)
    if len(keys) != values.num_rows or len(set(keys)) != len(keys):
        raise DatasetError(
            f"{storage.path(folder)}: {shard} has {len(keys)} keys ({len(set(keys))} distinct) for {values.num_rows} rows; "
            "a column has one row per record"
        )
    data = canonical_json({"column": column, "digest8": digest8, **card})
    if not storage.create(f"{folder}/{_CARD}", data) and storage.read(f"{folder}/{_CARD}") != data:
        raise DatasetError(
            f"{storage.path(folder)} was made by other settings than the ones at hand; put all of them into its digest, "
            "or remove the folder"
        )
    table = values.add_column(0, pa.field("key", pa.string(), nullable=False), pa.array(keys, pa.string()))
    storage.create(f"{folder}/{shard}.parquet", encode_parquet(table))


def sidecar_shards(storage: Storage, column: str, digest8: str) -> set[str]:
    """The shards of a column that are written; a resumed job skips them."""
    return _written(storage, sidecar_folder(column, digest8))


class Sidecar:
    """One column of a dataset. Pickles small; tables are read lazily in each process, a bounded number of them.

    Attributes:
        column: its name, such as `concepts`.
        folder: where it lies in the dataset.
        card: what made it.
    """

    def __init__(self, dataset: Dataset, folder: str) -> None:
        self.dataset = dataset
        self.folder = folder
        path = f"{folder}/{_CARD}"
        try:
            self.card: dict[str, Any] = json.loads(dataset.storage.read(path))
            self.column = str(self.card["column"])
        except FileNotFoundError as problem:
            raise DatasetError(f"{dataset.storage.path(path)} is missing; make the column again") from problem
        except (ValueError, KeyError, TypeError) as problem:
            raise DatasetError(
                f"{dataset.storage.path(path)} is damaged ({problem}); make the column again"
            ) from problem
        self._start_process()

    def __getstate__(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "folder": self.folder, "card": self.card, "column": self.column}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_process()

    def _start_process(self) -> None:
        self._lock = threading.Lock()
        self._tables: OrderedDict[int, _Rows] = OrderedDict()

    @property
    def is_complete(self) -> bool:
        """Whether every shard of the dataset has its part of the column."""
        return {entry.name for entry in self.dataset.manifest} <= _written(self.dataset.storage, self.folder)

    def table(self, shard: int) -> pa.Table:
        """The column of one shard, as written.

        Raises:
            DatasetError: this part is missing or damaged.
        """
        storage = self.dataset.storage
        path = f"{self.folder}/{self.dataset.manifest[shard].name}.parquet"
        try:
            return pq.read_table(pa.BufferReader(storage.read(path)))
        except FileNotFoundError as problem:
            raise DatasetError(
                f"{storage.path(path)} is missing; run the job that makes {self.column!r} again"
            ) from problem
        except pa.ArrowException as problem:
            raise DatasetError(f"{storage.path(path)} is damaged ({problem}); remove it and make it again") from problem

    def row(self, shard: int, key: str) -> dict[str, Any]:
        """What the column says about one record, by column name.

        Lists of a fixed size (embeddings) come as numpy vectors that share the table's memory, all else as Python values.

        Raises:
            DatasetError: the column has no row for this key, or its file is missing or damaged.
        """
        with self._lock:
            rows = self._tables.get(shard)
            if rows is not None:
                self._tables.move_to_end(shard)
        if rows is None:
            rows = _Rows(self.table(shard))
            with self._lock:
                self._tables[shard] = rows
                while len(self._tables) > _TABLES:
                    self._tables.popitem(last=False)
        place = rows.places.get(key)
        if place is None:
            raise DatasetError(
                f"{self.dataset.storage.path(self.folder)} has no row for the record {key!r} of "
                f"{self.dataset.manifest[shard].name}; make the column again for this dataset"
            )
        return {name: get(place) for name, get in rows.getters.items()}


class _Rows:
    """A table prepared for picking single rows."""

    def __init__(self, table: pa.Table) -> None:
        table = table.combine_chunks()
        self.places: dict[str, int] = {key: place for place, key in enumerate(table["key"].to_pylist())}
        self.getters: dict[str, Getter] = {name: _getter(table[name]) for name in table.column_names if name != "key"}


def open_sidecar(dataset: Dataset, column_or_folder: str) -> Sidecar:
    """Open a column by name, where there is one of that name, or by name and digest (`concepts-1a2b3c4d`).

    Raises:
        DatasetError: there is no such column, or several; names those there are.
    """
    known = [folder.removeprefix("sidecars/") for folder in dataset.storage.folders("sidecars")]
    found = [name for name in known if column_or_folder in (name, name.rpartition("-")[0])]
    if len(found) == 1:
        return Sidecar(dataset, f"sidecars/{found[0]}")
    if found:
        raise DatasetError(f"{dataset.path} has several columns {column_or_folder!r}; name one of: {', '.join(found)}")
    there = f"there are: {', '.join(known)}" if known else "it has none yet"
    raise DatasetError(f"{dataset.path} has no column {column_or_folder!r}; {there}")


def _written(storage: Storage, folder: str) -> set[str]:
    paths = storage.list(folder)
    return {path.removeprefix(f"{folder}/").removesuffix(".parquet") for path in paths if path.endswith(".parquet")}


def _getter(column: pa.ChunkedArray) -> Getter:
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if pa.types.is_fixed_size_list(array.type) and not array.null_count:
        matrix: np.ndarray[Any, Any] = array.flatten().to_numpy(zero_copy_only=False).reshape(-1, array.type.list_size)
        return lambda place: matrix[place]
    return lambda place: array[place].as_py()
