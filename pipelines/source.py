"""The contract of a raw format: deterministic units of raw items, and records or rejects read from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePath
from typing import Any, ClassVar, Protocol

import xxhash
from pydantic import PositiveInt

from shards.config import Config, digest
from shards.media import Check
from shards.records import Record, Reject

RawItem = Mapping[str, Any]  # JSON values only; always has "id"; what a worker needs to build the record, but no pixels

_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_KEY_STEM = 80  # keeps member names inside the 100 bytes of a plain tar header


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A deterministic slice of the raw input: the atom of distribution, retry and resume, and exactly one shard.

    It carries its raw items (ids, paths, texts), so a worker never parses the annotation file again.
    """

    index: int  # gives the shard its number
    items: tuple[RawItem, ...]
    retry: bool = False  # the items are rejects of earlier units, tried again

    def id(self, config_digest: str) -> str:
        """The name of this unit under a config: a hash of its input and the config, never of the attempt."""
        again = {"retry": True} if self.retry else {}
        items = [dict(item) for item in self.items]
        return digest({"config": config_digest, "index": self.index, "items": items, **again})


def batched(items: Iterable[RawItem], size: int) -> Iterator[tuple[RawItem, ...]]:
    """Cut items into runs of `size`, the last of what is left (`itertools.batched` is of Python 3.12)."""
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a source must know about the dataset that is being made from it."""

    dataset: str
    split: str
    records_per_shard: int
    max_pixels: int
    check: Check = "structure"  # how pictures are found to be whole

    def key(self, stem: str) -> str:
        """Name a record for ever: `<dataset>-<split>-<stem>`, with a stem that two raw ids never share.

        A stem with other characters than a key allows is spelt with `_` and told apart by a hash of the original.
        """
        if not _KEY.fullmatch(stem) or len(stem) > _LONGEST_KEY_STEM:
            spelt = re.sub(r"[^A-Za-z0-9_-]+", "_", PurePath(stem).stem)[:40].strip("_")
            stem = f"{spelt}-{xxhash.xxh3_64_hexdigest(stem.encode())}".lstrip("-")
        return f"{self.dataset}-{self.split}-{stem}"

    def slice(self, items: Iterable[RawItem]) -> Sequence[Unit]:
        """Cut the raw items, in their order, into units of `records_per_shard`."""
        return tuple(
            Unit(index=index, items=tuple(batch)) for index, batch in enumerate(batched(items, self.records_per_shard))
        )


class SourceConfig(Config):
    """What every source is told: where its annotations lie, and which part of them to take; most add `media`."""

    LOCATIONS: ClassVar[tuple[str, ...]] = ("annotations", "media")
    """The keys that are files or folders; a source with more of them names them all."""

    annotations: str
    """The annotation file, as the dataset's authors publish it."""
    split: str | None = None
    """Name of the split; some formats also select by it."""
    limit: PositiveInt | None = None
    """Take only the first so many raw items."""
    follow_links: bool = False
    """Allow links in the media folder that lead out of it."""

    def identity(self) -> dict[str, Any]:
        """The config without where its files happen to be mounted: a dataset must not change when a disk moves.

        The last component of each path stays, so that pointing at another folder of pictures is another dataset.
        """
        plain = self.model_dump(mode="json")
        return plain | {name: PurePath(plain[name]).name for name in self.LOCATIONS if plain.get(name)}

    def split_name(self) -> str:
        """The split as it stands in keys and file names."""
        return re.sub(r"[^A-Za-z0-9_]+", "_", self.split).strip("_") if self.split else "all"


class Source(Protocol):
    """A raw format. Built from its own `Config` (one module in `pipelines/sources/`, whose file name is its kind)."""

    def units(self) -> Sequence[Unit]:
        """Slice the raw input; reads annotation files but no pixels. Raises `InputError` for a file that is wrong as a whole."""
        ...

    def read(self, unit: Unit) -> Iterator[Record | Reject]:
        """Read the raw media of a unit.

        Every item yields exactly one `Record` or one item-level `Reject`; every raw annotation ends in a record or in
        an annotation-level `Reject`.
        """
        ...

    def annotation_count(self, item: RawItem) -> int:
        """How many raw annotations an item holds: the annotation side of the ledger."""
        ...

    def media_bytes(self, item: RawItem) -> int | None:
        """Size of an item's media, None where that is not known without reading them; for the estimate of a dry run."""
        ...
