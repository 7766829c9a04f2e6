"""Reading a dataset: any record by shard and row, straight from its bytes, every member checked against its checksum."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import xxhash

from shards.annotation_column import AnnotationColumn
from shards.codec import HEADER_MEMBER, decode_record
from shards.config import digest
from shards.errors import DamagedRecordError, DatasetError
from shards.foreign import UNCHECKED, look_at, place_of
from shards.index import ShardIndex, read_index, tar_path
from shards.manifest import Card, ShardEntry, manifest_digest, read_card, read_manifest
from shards.records import Record
from shards.storage import Storage, open_storage

_Member = tuple[str, int, int, int]  # extension, offset, size, xxh3

_OPEN_FILES = 64
_INDICES = 256  # about 0.1 MB each at 1,000 records


class Dataset:
    """A finished dataset. Pickles to its address; files and indices are opened lazily in each process, a bounded number of them."""

    def __init__(self, storage: Storage, *, annotations: str | None = None) -> None:
        """Read card and manifest.

        Args:
            storage: where it lies.
            annotations: a column of annotations to see the dataset through: its records are then those that have any there.

        Raises:
            DatasetError: there is no finished dataset or column, or they do not agree.
        """
        self.storage = storage
        self.card: Card = read_card(storage)
        self.manifest: tuple[ShardEntry, ...] = read_manifest(storage)
        if manifest_digest(self.manifest) != self.card.manifest_digest:
            raise DatasetError(
                f"{storage.url}: the manifest is not the one its card names; run `verify repair=true` on it"
            )
        self._column = None if annotations is None else AnnotationColumn(storage, annotations)
        if self._column is not None:
            self.card, self.manifest = _seen_through(self._column, self.card, self.manifest)
        self._start_process()

    def __getstate__(self) -> dict[str, Any]:
        names = ("storage", "card", "manifest", "_column")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_process()

    def __len__(self) -> int:
        return self.card.records

    def __repr__(self) -> str:
        return f"Dataset({self.path!r}, records={len(self)})"

    def _start_process(self) -> None:
        self._lock = threading.Lock()
        self._indices: OrderedDict[int, ShardIndex] = OrderedDict()
        self._files: OrderedDict[str, _TarFile] = OrderedDict()
        self._unchanged: set[int] = set()  # shards whose foreign tar was looked at
        self._places: dict[str, tuple[int, int]] | None = None

    @property
    def path(self) -> str:
        """Folder or address."""
        return self.storage.url

    @property
    def digest(self) -> str:
        """The digest of the manifest, and of the column it is seen through: equal digests mean equal records in equal order."""
        return self.card.manifest_digest

    def shard_sizes(self, count: Literal["records", "annotations"] = "records") -> tuple[int, ...]:
        """How many records or annotations each shard holds."""
        return tuple(entry.records if count == "records" else entry.annotations for entry in self.manifest)

    def index(self, shard: int) -> ShardIndex:
        """The index of a shard. Raises `DatasetError` where its file is missing or damaged."""
        with self._lock:
            found = self._indices.get(shard)
            if found is not None:
                self._indices.move_to_end(shard)
                return found
        entry = self.manifest[shard]
        view = None if self._column is None else partial(self._column.view, entry.name)
        found = read_index(self.storage, entry.name, xxh3=entry.index_xxh3, view=view)
        if len(found) != entry.records:
            raise DatasetError(
                f"{self.path}: the index of {entry.name} has {len(found)} rows, the manifest {entry.records}"
            )
        with self._lock:
            self._indices[shard] = found
            while len(self._indices) > _INDICES:
                self._indices.popitem(last=False)
        return found

    def record(self, shard: int, row: int, *, payload: bool = True) -> Record:
        """Read one record.

        Args:
            shard: number in the manifest.
            row: number in the shard.
            payload: whether to read the media bytes too, or the header alone.

        Raises:
            DamagedRecordError: a member is cut off, does not match its checksum, or is no record; names shard, key and member.
            IndexError: there is no such shard or row.
        """
        index = self.index(shard)
        if not 0 <= row < len(index):
            raise IndexError(f"{self.path}: {index.name} has {len(index)} records, not a row {row}")
        key = index.keys[row]
        wanted = [place for place in index.members(row) if place[0] == "json" or (payload and place[0] != "txt")]
        members = self._checked(shard, key, wanted)
        where = f"{self.path}: shard {index.name}"
        try:
            record = decode_record(key, members)
        except DamagedRecordError as problem:
            raise DamagedRecordError(f"{where}, {problem}") from problem
        if payload and len(record.payload) < len(record.media):
            raise DamagedRecordError(f"{where}, record {key!r}: the index lists none of its media")
        if self._column is not None:
            record = replace(record, annotations=self._column.annotations(index.name, key))
        return record

    def records(self, shard: int | None = None, *, payload: bool = True) -> Iterator[Record]:
        """Read the records of one shard, or of all, in order."""
        for number in range(len(self.manifest)) if shard is None else (shard,):
            for row in range(self.manifest[number].records):
                yield self.record(number, row, payload=payload)

    def raw(self, shard: int) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Read the records of a shard in order as key and members, extension to bytes: checked, but nothing parsed.

        Raises:
            DamagedRecordError: a member is cut off or does not match its checksum; names shard, key and member.
        """
        index = self.index(shard)
        for row, key in enumerate(index.keys):
            yield key, self._checked(shard, key, index.members(row))

    def locate(self, key: str) -> tuple[int, int]:
        """Find a key: its shard and row. The first call reads every index.

        Raises:
            KeyError: no record has this key.
        """
        if self._places is None:
            self._places = {
                key: (shard, row)
                for shard in range(len(self.manifest))
                for row, key in enumerate(self.index(shard).keys)
            }
        return self._places[key]

    def _checked(self, shard: int, key: str, wanted: list[_Member]) -> dict[str, bytes]:
        """Some members of a record, extension to bytes, each as long as the index says and with its checksum."""
        entry = self.manifest[shard]
        members: dict[str, bytes] = {}
        for (extension, _, size, xxh3), data in zip(wanted, self._read(shard, wanted), strict=True):
            if len(data) != size:
                what = f"its {extension!r} member ends after {len(data)} of {size} bytes"
            elif xxhash.xxh3_64_intdigest(data) != xxh3 and not (xxh3 == UNCHECKED and entry.foreign is not None):
                what = f"its {extension!r} member does not match its checksum"
            else:
                members[extension] = data
                continue
            raise self._blame(shard, f"{self.path}: shard {entry.name}, record {key!r}: {what}")
        return members

    def _read(self, shard: int, members: list[_Member]) -> list[bytes]:
        """The bytes of some members of a record, in their order; fewer bytes where a file ends before."""
        foreign = self.manifest[shard].foreign
        if foreign is None:
            return self._read_tar(shard, members, self.storage, tar_path(self.manifest[shard].name))
        # The header lies in a shard of ours, the media in the tar that was indexed where it lay.
        own = [member for member in members if member[0] == HEADER_MEMBER]
        outside = [member for member in members if member[0] != HEADER_MEMBER]
        found = self._read_tar(shard, own, self.storage, tar_path(self.manifest[shard].name))
        if outside:
            if shard not in self._unchanged:
                foreign.check_unchanged()
                self._unchanged.add(shard)
            found += self._read_tar(shard, outside, *place_of(foreign.address))
        by_name = dict(zip([member[0] for member in own + outside], found, strict=True))
        return [by_name[member[0]] for member in members]

    def _read_tar(self, shard: int, members: list[_Member], storage: Storage, name: str) -> list[bytes]:
        if not storage.is_local:
            return _read_span(storage, name, members)
        tar = self._file(storage.path(name))
        return [os.pread(tar.descriptor, size, offset) for _, offset, size, _ in members]

    def _blame(self, shard: int, what: str) -> DatasetError:
        """Damage to one record; or to the whole shard, where the foreign tar was written again since it was indexed."""
        foreign = self.manifest[shard].foreign
        if foreign is not None and look_at(foreign.address).stamp != foreign.stamp:
            return DatasetError(
                f"{what}: {foreign.address} was written again after it was indexed; bring the old file back, or run `index` "
                "again with another output"
            )
        return DamagedRecordError(what)

    def _file(self, path: str) -> _TarFile:
        with self._lock:
            found = self._files.get(path)
            if found is None:
                found = self._files[path] = _TarFile(path)
                while len(self._files) > _OPEN_FILES:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(path)
            return found


class _TarFile:
    """An open shard. `pread` has no position, so threads and forked workers share it safely; it closes with its last user."""

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as problem:
            raise DatasetError(f"{path} is missing; run the `verify` verb on the dataset") from problem

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _read_span(storage: Storage, name: str, members: list[_Member]) -> list[bytes]:
    """One request for all members of a record: they lie side by side, and a request costs more than the gaps."""
    start = min((offset for _, offset, _, _ in members), default=0)
    end = max((offset + size for _, offset, size, _ in members), default=0)
    try:
        span = memoryview(storage.read_range(name, start, end - start))
    except FileNotFoundError as problem:
        raise DatasetError(f"{storage.path(name)} is missing; run the `verify` verb on the dataset") from problem
    return [bytes(span[offset - start : offset - start + size]) for _, offset, size, _ in members]


def open_dataset(path: str | Path, *, annotations: str | None = None) -> Dataset:
    """Open a dataset by folder or address.

    Args:
        path: as the `shards` or `index` verb wrote it.
        annotations: a column that `annotate` wrote, by name or folder: the records come with its annotations, and those that
            have none there are left out.

    Raises:
        DatasetError: there is no finished dataset or column, or they do not agree.
    """
    return Dataset(open_storage(path), annotations=annotations)


def _seen_through(
    column: AnnotationColumn, card: Card, manifest: tuple[ShardEntry, ...]
) -> tuple[Card, tuple[ShardEntry, ...]]:
    """Card and manifest of the records that a column has annotations for."""
    parts = [column.part(entry.name) for entry in manifest]
    ledger = column.ledger
    kind = ledger.annotation_type
    card = replace(
        card,
        records=ledger.records,
        annotations=ledger.annotations,
        annotation_type=kind,
        annotation_types={kind: ledger.records} if kind is not None else {},
        manifest_digest=digest([card.manifest_digest, ledger.digest]),
    )
    seen = zip(manifest, parts, strict=True)
    return card, tuple(replace(entry, records=part.records, annotations=part.annotations) for entry, part in seen)
