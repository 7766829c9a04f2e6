"""A finished column of annotations as a reader of the dataset sees it: annotations by record, and indices of what has any."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import Any

import pyarrow as pa
import xxhash

from shards.annotations import Part, read_ledger, read_part
from shards.codec import annotation_from_plain
from shards.columns import find_column, part_path
from shards.errors import DatasetError
from shards.forks import begin_in_every_child
from shards.index import text_length
from shards.records import Annotation
from shards.storage import Storage

_PARTS = 32  # parsed parts held in memory


class AnnotationColumn:
    """The annotations of a finished column. Pickles small; parts are read lazily in each process, a bounded number of them."""

    def __init__(self, storage: Storage, column_or_folder: str) -> None:
        self._storage = storage
        self.folder = find_column(storage, column_or_folder)
        self.ledger = read_ledger(storage, self.folder)
        self._parts = {part.shard: part for part in self.ledger.parts}
        self._start_process()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_texts")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_process()

    def _start_process(self) -> None:
        self._texts: OrderedDict[str, dict[str, str]] = OrderedDict()
        self.begin_process()
        begin_in_every_child(self)

    def begin_process(self) -> None:
        """Open the lock: an index that is read ahead takes it in a thread of its own."""
        self._lock = threading.Lock()

    def part(self, shard: str) -> Part:
        """What the column holds for a shard. Raises `DatasetError` where the shard is younger than the column."""
        found = self._parts.get(shard)
        if found is None:
            raise DatasetError(
                f"{self._storage.path(self.folder)} knows no shard {shard}, which the dataset has; run `annotate` again"
            )
        return found

    def annotations(self, shard: str, key: str) -> tuple[Annotation, ...]:
        """The annotations of one record. Raises `DatasetError` where the part is damaged or about other records."""
        text = self._text_of(shard).get(key)
        if text is None:
            raise DatasetError(f"{self._where(shard)} has no row for the record {key!r}; run `annotate` again")
        return tuple(annotation_from_plain(plain) for plain in json.loads(text))

    def view(self, shard: str, index: pa.Table) -> pa.Table:
        """A shard's index as this column sees it: rows that have annotations, with the counts and lengths of these."""
        texts = self._text_of(shard)
        if index["key"].to_pylist() != list(texts):
            raise DatasetError(
                f"{self._where(shard)} is about other records than the shard holds; run `annotate` again"
            )
        lists = [[annotation_from_plain(plain) for plain in json.loads(text)] for text in texts.values()]
        lengths = [max(map(text_length, each), default=0) for each in lists]
        replaced = {"annotations": [len(each) for each in lists], "text_length": lengths}
        for name, values in replaced.items():
            place = index.schema.get_field_index(name)
            index = index.set_column(place, index.schema.field(place), pa.array(values, pa.int32()))
        return index.take(pa.array([row for row, each in enumerate(lists) if each], pa.int64()))

    def _text_of(self, shard: str) -> dict[str, str]:
        with self._lock:
            found = self._texts.get(shard)
            if found is not None:
                self._texts.move_to_end(shard)
                return found
        data, table = read_part(self._storage, self.folder, shard)
        if xxhash.xxh3_64_hexdigest(data) != self.part(shard).xxh3:
            raise DatasetError(
                f"{self._where(shard)} does not match the checksum in its ledger; remove it and annotate again"
            )
        found = dict(zip(table["key"].to_pylist(), table["annotations"].to_pylist(), strict=True))
        with self._lock:
            self._texts[shard] = found
            while len(self._texts) > _PARTS:
                self._texts.popitem(last=False)
        return found

    def _where(self, shard: str) -> str:
        return self._storage.path(part_path(self.folder, shard))
