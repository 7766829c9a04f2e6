"""How records of remote datasets are read: by ranges, or through a cache of shards on local disk; and how far ahead."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Literal, Self

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from shards.ahead import ReadAhead
from shards.cache import Content, ShardCache
from shards.config import Config
from shards.errors import ConfigError
from shards.patience import Patience
from shards.ranges import Place, read_places
from shards.storage import Storage

_HELD_BYTES = 256 << 20  # read ahead and not yet used, per process
_CACHE_WAIT_S = 600.0  # for a shard that another process fetches


class CacheConfig(Config):
    """How datasets in object stores are read; says nothing about local ones, and nothing about what is read."""

    mode: Literal["ranges", "shards", "off"] = "ranges"
    """ranges: members by ranges, neighbours in one request, kept in memory until used; shards: whole shards, kept in `folder`
    and shared by all processes of a node; off: one request per record, when it is used"""
    folder: str | None = None
    """where mode=shards keeps them: on a local disk, for any number of runs"""
    bytes: PositiveInt = 64 << 30
    """of all shards in `folder`; the ones not read for longest make room"""
    ahead: NonNegativeInt = 8
    """steps that each process fetches ahead of the one it makes; 0: none"""
    threads: PositiveInt = 8
    """requests that each process makes at the same time, to read ahead"""
    attempts: PositiveInt = 8
    """requests for the same bytes, with growing pauses between them, before the run stops"""
    timeout_s: PositiveFloat = 60.0
    """longest wait for the answer to one request of at most 16 MiB"""

    @model_validator(mode="after")
    def _folder_for_shards(self) -> Self:
        if self.mode == "shards" and self.folder is None:
            raise ValueError("mode=shards needs folder=… (on a local disk)")
        return self

    @property
    def patience(self) -> Patience:
        """How often and how long a store is asked."""
        return Patience(attempts=self.attempts, timeout_s=self.timeout_s)


class RemoteReader:
    """Reads members of tars that lie in stores. Pickles to its config."""

    def __init__(self, config: CacheConfig) -> None:
        self.config = config
        self.cache: ShardCache | None = None
        if config.mode == "shards" and config.folder is not None:
            self.cache = ShardCache(config.folder, limit_bytes=config.bytes, wait_s=_CACHE_WAIT_S)

    def __getstate__(self) -> dict[str, object]:
        return {"config": self.config, "cache": self.cache}

    @cached_property
    def ahead(self) -> ReadAhead:
        """What is being read ahead in this process."""
        # A group's reading ends by itself within the patience of its requests; this only bounds the wait for a lost thread.
        return ReadAhead(threads=self.config.threads, held_bytes=_HELD_BYTES, wait_s=_CACHE_WAIT_S)

    @property
    def reads_ahead(self) -> int:
        """Steps that are to be announced before they are read."""
        return 0 if self.config.mode == "off" else self.config.ahead

    def settle(self) -> None:
        """Find out before the work starts that the cache cannot be kept.

        Raises:
            ConfigError: its folder cannot be made or written to.
        """
        if self.cache is None:
            return
        try:
            self.cache.make_folder()
            problem = None if os.access(self.cache.folder, os.W_OK) else "it cannot be written to"
        except OSError as found:
            problem = found.strerror
        if problem is not None:
            raise ConfigError(f"cache.folder={self.config.folder!r}: {problem}; choose another one")

    def read(self, storage: Storage, name: str, content: Content | None, places: Sequence[Place]) -> list[bytes]:
        """Read places of a tar, fetching it into the cache where there is one.

        Args:
            storage: where the tar lies.
            name: of the tar.
            content: of the whole tar; None where it is not known, and then it is not cached.
            places: any number, in any order.

        Returns:
            The bytes of each place; fewer where the tar ends before.

        Raises:
            FileNotFoundError: there is no such tar.
            StoreError: the store does not answer.
        """
        if self.fetch(storage, name, content):
            assert self.cache is not None
            assert content is not None
            found = self.cache.read(content, places)
            if found is not None:
                return found
        return read_places(storage, name, places)

    def fetch(self, storage: Storage, name: str, content: Content | None) -> bool:
        """Have a tar in the cache; False where there is no cache or no room in it."""
        if self.cache is None or content is None:
            return False
        return self.cache.ensure(content, lambda offset, size: storage.read_range(name, offset, size))

    def recheck(self, content: Content | None) -> None:
        """Drop a tar from the cache if it was damaged there."""
        if self.cache is not None and content is not None:
            self.cache.recheck(content)
