"""Raw items by the shard that holds their pictures; they stay on disk until their shard's turn, so that any number of them fits."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, overload

from pipelines.picture_names import Spot
from pipelines.source import RawItem
from shards.config import canonical_json
from shards.errors import OstrakaError


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardItems:
    """The raw items whose pictures one shard holds, each with its row; all that a worker needs."""

    shard: int
    items: tuple[tuple[int, RawItem], ...]


class MatchedItems(Sequence[ShardItems]):
    """Every shard with its items, which stay on disk until their shard is asked for; the file goes with the object."""

    def __init__(self, shards: int) -> None:
        self._spool: IO[bytes] = tempfile.TemporaryFile(prefix="ostraka-annotate-")  # noqa: SIM115 (lives on)
        self._places: list[list[tuple[int, int, int]]] = [[] for _ in range(shards)]  # (row, offset, size)
        self._end = 0

    def add(self, spot: Spot, item: RawItem) -> None:
        """Note an item under the record that holds its picture. Raises `OstrakaError` where the temporary folder is full."""
        data = canonical_json(item)
        try:
            self._spool.write(data)
        except OSError as problem:
            raise OstrakaError(
                f"the matched annotations do not fit into {tempfile.gettempdir()} ({problem.strerror}); free some space there, "
                "or set TMPDIR to a larger disk"
            ) from problem
        self._places[spot.shard].append((spot.row, self._end, len(data)))
        self._end += len(data)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, shard: int) -> ShardItems: ...
    @overload
    def __getitem__(self, shard: slice) -> Sequence[ShardItems]: ...
    def __getitem__(self, shard: int | slice) -> ShardItems | Sequence[ShardItems]:
        if isinstance(shard, slice):
            return [self[number] for number in range(*shard.indices(len(self)))]
        self._spool.flush()
        items = []
        for row, offset, size in self._places[shard]:
            items.append((row, json.loads(os.pread(self._spool.fileno(), size, offset))))
        return ShardItems(shard=shard, items=tuple(items))


class SomeShards(Sequence[ShardItems]):
    """Those of the matched items whose shards are named, just as lazily."""

    def __init__(self, items: MatchedItems, shards: Sequence[int]) -> None:
        self._items = items
        self._shards = tuple(shards)

    def __len__(self) -> int:
        return len(self._shards)

    @overload
    def __getitem__(self, place: int) -> ShardItems: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[ShardItems]: ...
    def __getitem__(self, place: int | slice) -> ShardItems | Sequence[ShardItems]:
        if isinstance(place, slice):
            return [self._items[shard] for shard in self._shards[place]]
        return self._items[self._shards[place]]
