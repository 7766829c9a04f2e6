"""Reading a dataset: any record by shard and row, straight from its bytes, every member checked against its checksum."""

from __future__ import annotations

import errno
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import xxhash

from shards.annotation_column import AnnotationColumn
from shards.codec import decode_record
from shards.config import digest
from shards.errors import DamagedRecordError, DatasetError
from shards.foreign import UNCHECKED
from shards.forks import begin_in_every_child
from shards.index import ShardIndex, read_index
from shards.manifest import Card, ShardEntry, manifest_digest, read_card, read_manifest
from shards.members import Member, MemberReader
from shards.records import Record
from shards.remote import CacheConfig
from shards.storage import Storage
from shards.stores import open_storage

_BLOCK_BYTES = 8 << 20  # of neighbouring records that are read ahead together
_INDICES = 256  # about 0.1 MB each at 1,000 records
_BROKEN_DISK = frozenset({errno.EIO, errno.ESTALE, errno.EUCLEAN})  # what a file system says of bytes that it has lost


class Dataset:
    """A finished dataset. Pickles to its address; files and indices are opened lazily in each process, a bounded number of them."""

    def __init__(self, storage: Storage, *, annotations: str | None = None, cache: CacheConfig | None = None) -> None:
        """Read card and manifest.

        Args:
            storage: where it lies.
            annotations: a column of annotations to see the dataset through: its records are then those that have any there.
            cache: how it is read where it lies in a store.

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
        self._members = MemberReader(storage, self.manifest, cache or CacheConfig())
        if self._members.has_remote:
            self._members.remote.settle()
        self._start_process()

    def __getstate__(self) -> dict[str, Any]:
        names = ("storage", "card", "manifest", "_column", "_members")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_process()

    def __len__(self) -> int:
        return self.card.records

    def __repr__(self) -> str:
        return f"Dataset({self.path!r}, records={len(self)})"

    def _start_process(self) -> None:
        self._indices: OrderedDict[int, ShardIndex] = OrderedDict()
        self._places: dict[str, tuple[int, int]] | None = None
        self.begin_process()
        begin_in_every_child(self)

    def begin_process(self) -> None:
        """Open the lock; the indices that a parent has read serve its children as well."""
        self._lock = threading.Lock()

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
        return self._parsed(index, key, self._checked(shard, row, key, _wanted(index, row, payload=payload)), payload)

    def _parsed(self, index: ShardIndex, key: str, members: Mapping[str, bytes], payload: bool) -> Record:
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

    def records(
        self,
        shard: int | None = None,
        *,
        payload: bool = True,
        leave_out: Callable[[int, int, DamagedRecordError], object] | None = None,
    ) -> Iterator[Record]:
        """Read the records of one shard, or of all, in order; from a store they are read ahead.

        Args:
            shard: number in the manifest; None: all of them.
            payload: whether to read the media bytes too, or the headers alone.
            leave_out: told of each damaged record, by shard, row and what is wrong, which then is left out.

        Raises:
            DamagedRecordError: a record is damaged and may not be left out.
        """
        shards = range(len(self.manifest)) if shard is None else (shard,)
        for number, row, read in self._reads(shards, payload=payload):
            try:
                record = read()
            except DamagedRecordError as problem:
                if leave_out is None:
                    raise
                leave_out(number, row, problem)
                continue
            yield record

    def _reads(self, shards: Iterable[int], *, payload: bool) -> Iterator[tuple[int, int, Callable[[], Record]]]:
        """Name all records of some shards, each with what reads it."""
        if payload and not self._members.has_remote:
            for number in shards:
                index = self.index(number)
                for row, swept in enumerate(self._members.sweep(number, index)):
                    if swept is None:  # read once more by itself, it says what is wrong with it
                        yield number, row, partial(self.record, number, row)
                        continue
                    # What a record keeps must not keep its neighbours' bytes alive.
                    members = {name: bytes(data) for name, data in swept.items()}
                    yield number, row, partial(self._parsed, index, index.keys[row], members, payload)
            return
        blocks = list(self._blocks(shards))
        ahead = self._members.remote.config.threads if self.ahead else 0
        for place, (number, rows) in enumerate(blocks):
            # The first round announces several blocks, every later one the block that comes into sight.
            for coming, its_rows in blocks[0 if place == 0 else place + ahead : place + ahead + 1] if ahead else ():
                self.expect(coming, partial(iter, its_rows), payload=payload)
            for row in rows:
                yield number, row, partial(self.record, number, row, payload=payload)

    @property
    def ahead(self) -> int:
        """How many steps should be announced before they are read: 0 where all lies on this machine."""
        return self._members.remote.reads_ahead if self._members.has_remote else 0

    def expect(self, shard: int, rows: Callable[[], Iterable[int]], *, payload: bool = True) -> None:
        """Announce records that will be read soon, so that they are fetched meanwhile. Changes nothing but the waiting.

        Args:
            shard: number in the manifest.
            rows: names the rows; called by another thread, since naming them may take the shard's index.
            payload: whether the media will be read too.
        """
        if self.ahead and self._members.is_remote(shard):
            self._members.remote.ahead.expect(shard, partial(self._load, shard, rows, payload=payload))

    def _load(self, shard: int, rows: Callable[[], Iterable[int]], *, payload: bool) -> dict[int, dict[str, bytes]]:
        index = self.index(shard)
        return self._members.read_rows(shard, {row: _wanted(index, row, payload=payload) for row in rows()})

    def _blocks(self, shards: Iterable[int]) -> Iterator[tuple[int, range]]:
        """Cut shards into stretches of neighbouring records of about `_BLOCK_BYTES`."""
        for shard in shards:
            entry = self.manifest[shard]
            size = entry.bytes if entry.foreign is None else entry.foreign.bytes
            length = max(1, entry.records * _BLOCK_BYTES // max(size, 1))
            for start in range(0, entry.records, length):
                yield shard, range(start, min(start + length, entry.records))

    def raw(self, shard: int) -> Iterator[tuple[str, Mapping[str, bytes | memoryview]]]:
        """Read the records of a shard in order as key and members, extension to bytes: checked, but nothing parsed.

        Of a local shard the bytes are views of a piece of memory that holds those of neighbouring records, too, and stays as
        long as any of them is kept.

        Raises:
            DamagedRecordError: a member is cut off or does not match its checksum; names shard, key and member.
        """
        index = self.index(shard)
        swept = self._members.sweep(shard, index)
        for row, (key, members) in enumerate(zip(index.keys, swept, strict=True)):
            # What a sweep could not read is read once more by itself, which says what is wrong with it.
            yield key, self._checked(shard, row, key, index.members(row)) if members is None else members

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

    def _checked(self, shard: int, row: int, key: str, wanted: list[Member]) -> dict[str, bytes]:
        """Some members of a record, extension to bytes, each as long as the index says and with its checksum."""
        try:
            found = self._taken(shard, row, wanted) if self._members.has_remote else None
            if found is None:
                found = self._members.read(shard, wanted)
            what = self._wrong(shard, wanted, found)
            if what is not None and self._members.may_read_again(shard):
                found = self._members.read(shard, wanted)
                what = self._wrong(shard, wanted, found)
        except FileNotFoundError as problem:
            what = f"{problem.filename} is missing; run the `verify` verb on the dataset"
            raise DamagedRecordError(self._named(shard, key, what)) from problem
        except OSError as problem:
            if problem.errno not in _BROKEN_DISK:
                raise
            what = f"its bytes cannot be read ({problem.strerror})"
            raise DamagedRecordError(self._named(shard, key, what)) from problem
        if what is not None:
            raise self._members.blame(shard, self._named(shard, key, what))
        return {member[0]: data for member, data in zip(wanted, found, strict=True)}

    def _taken(self, shard: int, row: int, wanted: list[Member]) -> list[bytes] | None:
        """What was read ahead of some members; None where they were not announced."""
        names = [member[0] for member in wanted]
        taken = self._members.remote.ahead.take(shard, row, names) if self.ahead else None
        return None if taken is None else [taken[name] for name in names]

    def _named(self, shard: int, key: str, what: str) -> str:
        return f"{self.path}: shard {self.manifest[shard].name}, record {key!r}: {what}"

    def _wrong(self, shard: int, wanted: list[Member], found: list[bytes]) -> str | None:
        """Say which member is not what the index says, and how; None where all are."""
        for (extension, _, size, xxh3), data in zip(wanted, found, strict=True):
            if len(data) != size:
                return f"its {extension!r} member ends after {len(data)} of {size} bytes"
            if xxhash.xxh3_64_intdigest(data) == xxh3:
                continue
            if xxh3 != UNCHECKED or self.manifest[shard].foreign is None:
                return f"its {extension!r} member does not match its checksum"
        return None


def _wanted(index: ShardIndex, row: int, *, payload: bool) -> list[Member]:
    """The members that make a record, or its header."""
    return [member for member in index.members(row) if member[0] == "json" or (payload and member[0] != "txt")]


def open_dataset(path: str | Path, *, annotations: str | None = None, cache: CacheConfig | None = None) -> Dataset:
    """Open a dataset by folder or address.

    Args:
        path: as the `shards` or `index` verb wrote it.
        annotations: a column that `annotate` wrote, by name or folder: the records come with its annotations, and those that
            have none there are left out.
        cache: how it is read where it lies in a store; unset: by ranges.

    Raises:
        ConfigError: the cache's folder takes nothing.
        DatasetError: there is no finished dataset or column, or they do not agree.
    """
    patience = None if cache is None else cache.patience
    return Dataset(open_storage(path, patience=patience), annotations=annotations, cache=cache)


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
