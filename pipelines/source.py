"""The contract of a raw format: deterministic units of raw items, and records or rejects read from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from shards.config import digest
from shards.records import Record, Reject

RawItem = Mapping[str, Any]  # JSON values only; always has "id"; what a worker needs to build the record, but no pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A deterministic slice of the raw input: the atom of distribution, retry and resume, and exactly one shard.

    It carries its raw items (ids, paths, texts), so a worker never parses the annotation file again.
    """

    index: int  # gives the shard its number
    items: tuple[RawItem, ...]

    def id(self, config_digest: str) -> str:
        """The name of this unit under a config: a hash of its input and the config, never of the attempt."""
        return digest({"config": config_digest, "index": self.index, "items": [dict(item) for item in self.items]})


class Source(Protocol):
    """A raw format. Built from its own `Config` (one module in `pipelines/sources/`, whose file name is its kind)."""

    def units(self) -> Sequence[Unit]:
        """Slice the raw input; reads annotation files but no pixels. Raises `InputError` for a file that is wrong as a whole."""
        ...

    def read(self, unit: Unit) -> Iterator[Record | Reject]:
        """Read the raw media of a unit. Every item yields exactly one `Record` or one item-level `Reject`."""
        ...
