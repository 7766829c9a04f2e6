"""What work is made of: raw items, and the units they are cut into."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from shards.config import digest

# What `shards.config.canonical_json` writes; made once, because `json.dumps` with any option builds an encoder for every call.
# Looking for circles would take as long as the rest, and items that a source has just built hold none.
_LINE = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
)

RawItem = Mapping[str, Any]  # JSON values only; always has "id"; what a worker needs to build the record, but no pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A deterministic slice of the raw input: the atom of distribution, retry and resume, and exactly one shard.

    It carries its raw items (ids, paths, texts), so a worker never parses the annotation file again. Only these travel to it.
    """

    index: int  # gives the shard its number
    items: Sequence[RawItem]  # of a plan: parsed whenever they are read, so go through them once
    retry: bool = False  # the items are rejects of earlier units, tried again

    def id(self, config_digest: str) -> str:
        """The name of this unit under a config: a hash of its input and the config, never of the attempt."""
        return unit_id(config_digest, index=self.index, content=self._content(), retry=self.retry)

    def _content(self) -> str:
        """A hash over all items in their order; those of a plan know theirs."""
        known = getattr(self.items, "content", None)
        return known if isinstance(known, str) else hash_of_items(as_line(item) for item in self.items)


def unit_id(config_digest: str, *, index: int, content: str, retry: bool) -> str:
    """The name of a unit whose items hash to `content`; see `Unit`."""
    again = {"retry": True} if retry else {}
    return digest({"config": config_digest, "index": index, "items": content, **again})


def as_line(item: RawItem) -> bytes:
    """An item as it is spooled and hashed: one line of canonical JSON."""
    return _LINE.encode(item if type(item) is dict else dict(item)).encode()


def hash_of_items(lines: Iterable[bytes]) -> str:
    """Name the raw input of a unit by 32 hex digits: xxh3-128 over the lines of its items."""
    return xxhash.xxh3_128_hexdigest(b"\n".join(lines))
