"""Columns learned after conversion: one Parquet per shard beside the dataset, joined by key; the shards stay as they are.

A column lives in `sidecars/<column>-<digest8>/`, where the digest names the config that made it; another vocabulary or model
writes another folder. `column.json` in the folder says what made it; whoever makes a column may keep more files there.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shards.columns import (
    COLUMN_CARD,
    find_column,
    part_path,
    sidecar_folder,
    sidecar_shards,
    write_sidecar,
    written_parts,
)
from shards.errors import DatasetError
from shards.reader import Dataset

__all__ = ["Sidecar", "open_sidecar", "sidecar_folder", "sidecar_shards", "write_sidecar"]

_TABLES = 32  # parsed shards held in memory

Getter = Callable[[int], Any]


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
        path = f"{folder}/{COLUMN_CARD}"
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
        return {entry.name for entry in self.dataset.manifest} <= written_parts(self.dataset.storage, self.folder)

    def table(self, shard: int, *, fields: Sequence[str] | None = None) -> pa.Table:
        """The column of one shard, as written, or its keys and some of its fields only.

        Raises:
            DatasetError: this part is missing or damaged, or has no such field.
        """
        storage = self.dataset.storage
        path = part_path(self.folder, self.dataset.manifest[shard].name)
        try:
            file = pq.ParquetFile(pa.BufferReader(storage.read(path)))
            if fields is None:
                return file.read(use_threads=False)  # see `decode_parquet`
            names: list[str] = file.schema_arrow.names
            unknown = [field for field in fields if field not in names]
            if unknown:
                found = ", ".join(name for name in names if name != "key")
                raise DatasetError(
                    f"{storage.path(path)} has no field {unknown[0]!r}; it has {found}; name another column"
                )
            return file.read(columns=["key", *fields], use_threads=False)
        except FileNotFoundError as problem:
            raise DatasetError(
                f"{storage.path(path)} is missing; run the job that makes {self.column!r} again"
            ) from problem
        except (pa.ArrowException, OSError) as problem:  # pyarrow reports some damage as OSError
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
    return Sidecar(dataset, find_column(dataset.storage, column_or_folder))


def _getter(column: pa.ChunkedArray) -> Getter:
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if pa.types.is_fixed_size_list(array.type) and not array.null_count:
        matrix: np.ndarray[Any, Any] = array.flatten().to_numpy(zero_copy_only=False).reshape(-1, array.type.list_size)
        return lambda place: matrix[place]
    return lambda place: array[place].as_py()
