"""The bytes of members, wherever the tars of a dataset lie: files of this machine, an object store, or a cache of its shards."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from shards.cache import Content
from shards.codec import HEADER_MEMBER
from shards.errors import DamagedRecordError, DatasetError
from shards.foreign import look_at, place_of
from shards.forks import begin_in_every_child
from shards.index import ShardIndex, tar_path
from shards.manifest import ShardEntry
from shards.ranges import Place
from shards.remote import CacheConfig, RemoteReader
from shards.storage import Storage
from shards.sweep import sweep

Member = tuple[str, int, int, int]  # extension, offset, size, xxh3

_OPEN_FILES = 64


@dataclass(frozen=True, slots=True)
class _Tar:
    """A file that holds members."""

    storage: Storage
    name: str
    content: Content | None  # None: nobody has hashed it as a whole


class MemberReader:
    """Reads members of a dataset's shards. Pickles without its open files, of which each process holds a bounded number."""

    def __init__(self, storage: Storage, manifest: Sequence[ShardEntry], cache: CacheConfig) -> None:
        self._storage, self._manifest, self.remote = storage, manifest, RemoteReader(cache)
        self._start()

    def __getstate__(self) -> dict[str, Any]:
        return {"_storage": self._storage, "_manifest": self._manifest, "remote": self.remote}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        self._files: OrderedDict[str, _TarFile] = OrderedDict()
        self._unchanged: set[int] = set()  # shards whose foreign tar was looked at
        self.begin_process()
        begin_in_every_child(self)

    def begin_process(self) -> None:
        """Open the lock; the parent's open files serve a child as well."""
        self._lock = threading.Lock()

    @cached_property
    def has_remote(self) -> bool:
        """Whether any member lies in a store."""
        return any(self.is_remote(shard) for shard in range(len(self._manifest)))

    def is_remote(self, shard: int) -> bool:
        """Whether any member of a shard lies in a store."""
        foreign = self._manifest[shard].foreign
        return not self._storage.is_local or (foreign is not None and "://" in foreign.address)

    def read(self, shard: int, members: Sequence[Member]) -> list[bytes]:
        """The bytes of some members, of one record or many, in the order asked for; fewer bytes where a tar ends before.

        Raises:
            FileNotFoundError: the tar is gone.
            StoreError: its store does not answer.
            DatasetError: a foreign tar is gone, or another one lies in its place.
        """
        entry = self._manifest[shard]
        if entry.foreign is None:
            if self._storage.is_local:  # the most frequent case by far, so it takes the shortest way
                return self._read_file(self._storage.path(tar_path(entry.name)), members)
            return self._read_tar(self._own(shard), members)
        # The header lies in a shard of ours, the media in the tar that was indexed where it lay.
        found: dict[int, bytes] = {}
        for is_header, tar in ((True, self._own), (False, self._outside)):
            numbers = [number for number, member in enumerate(members) if (member[0] == HEADER_MEMBER) == is_header]
            if numbers:
                data = self._read_tar(tar(shard), [members[number] for number in numbers])
                found.update(zip(numbers, data, strict=True))
        return [found[number] for number in range(len(members))]

    def sweep(self, shard: int, index: ShardIndex) -> Iterator[Mapping[str, memoryview] | None]:
        """The members of all records of a shard, in order and checked, where its tar is a local file of ours.

        Of other shards every record comes as None, as do records that are damaged.
        """
        entry = self._manifest[shard]
        if entry.foreign is None and self._storage.is_local:
            return sweep(self._storage.path(tar_path(entry.name)), index)
        return iter([None] * len(index))

    def read_rows(self, shard: int, rows: Mapping[int, Sequence[Member]]) -> dict[int, dict[str, bytes]]:
        """The members of many records at once, unchecked: row → extension → bytes.

        Where a cache takes the shard there are none: records are then read from there one by one.
        """
        if self._have_cached(shard):
            return {}
        members = [(row, member) for row, wanted in rows.items() for member in wanted]
        found: dict[int, dict[str, bytes]] = {row: {} for row in rows}
        for (row, member), data in zip(members, self.read(shard, [each for _, each in members]), strict=True):
            found[row][member[0]] = data
        return found

    def may_read_again(self, shard: int) -> bool:
        """Say, after wrong bytes, whether others may come the next time; a cached shard that is damaged is dropped first."""
        if not self.is_remote(shard):
            return False
        for tar in self._tars(shard):
            self.remote.recheck(tar.content)
        return True

    def blame(self, shard: int, what: str) -> DatasetError:
        """Damage to one record; or to the whole shard, where the foreign tar was written again since it was indexed."""
        foreign = self._manifest[shard].foreign
        if foreign is not None and look_at(foreign.address).stamp != foreign.stamp:
            return DatasetError(
                f"{what}: {foreign.address} was written again after it was indexed; bring the old file back, or run `index` "
                "again with another output"
            )
        return DamagedRecordError(what)

    def _have_cached(self, shard: int) -> bool:
        return all(self.remote.fetch(tar.storage, tar.name, tar.content) for tar in self._tars(shard))

    def _tars(self, shard: int) -> Iterable[_Tar]:
        """The tars of a shard that lie in stores."""
        if not self._storage.is_local:
            yield self._own(shard)
        foreign = self._manifest[shard].foreign
        if foreign is not None and "://" in foreign.address:
            yield self._outside(shard)

    def _own(self, shard: int) -> _Tar:
        entry = self._manifest[shard]
        return _Tar(self._storage, tar_path(entry.name), Content(entry.xxh3, entry.bytes))

    def _outside(self, shard: int) -> _Tar:
        foreign = self._manifest[shard].foreign
        assert foreign is not None  # callers have looked
        if shard not in self._unchanged:
            foreign.check_unchanged()
            self._unchanged.add(shard)
        storage, name = place_of(foreign.address, patience=self.remote.config.patience)
        return _Tar(storage, name, None if foreign.xxh3 is None else Content(foreign.xxh3, foreign.bytes))

    def _read_tar(self, tar: _Tar, members: Sequence[Member]) -> list[bytes]:
        if tar.storage.is_local:
            return self._read_file(tar.storage.path(tar.name), members)
        places = [Place(offset, size) for _, offset, size, _ in members]
        return self.remote.read(tar.storage, tar.name, tar.content, places)

    def _read_file(self, path: str, members: Sequence[Member]) -> list[bytes]:
        file = self._file(path)
        return [os.pread(file.descriptor, size, offset) for _, offset, size, _ in members]

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
        self.descriptor = -1  # where opening fails, too, there is something to look at in the end
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
