"""A compact set of items by shard: one bit per item, and the k-th of a shard found in constant memory (rank and select).

Source: Jacobson, "Space-efficient Static Trees and Graphs" (1989): counts per block make rank and select cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

_BLOCK = 64  # bytes that one count stands for; each shard begins a block

Bytes = npt.NDArray[np.uint8]


class Bitmap:
    """Chosen items of a list of shards: an eighth of a byte per item, and eight bytes per 512 items for finding them.

    Attributes:
        bits: uint8 (blocks · 64,), least significant bit first.
        starts: int64 (shards + 1,), the block in which each shard begins.
        sizes: int64 (shards,), how many items of each shard are chosen.
    """

    def __init__(self, bits: Bytes, starts: npt.NDArray[np.int64]) -> None:
        self.bits, self.starts = bits, starts
        ones = np.bitwise_count(bits.view(np.uint64)).reshape(-1, _BLOCK // 8)
        self._ranks = np.concatenate([[0], np.cumsum(ones.sum(axis=1, dtype=np.int64))]).astype(np.int64)
        self.sizes = np.diff(self._ranks[starts])

    @classmethod
    def of(cls, masks: Iterable[npt.NDArray[np.bool_]]) -> Self:
        """Pack one mask per shard, (items of the shard,) each."""
        parts, starts = [], [0]
        for mask in masks:
            blocks = -(-len(mask) // (8 * _BLOCK))
            part = np.zeros(blocks * _BLOCK, dtype=np.uint8)
            packed = np.packbits(mask, bitorder="little")
            part[: len(packed)] = packed
            parts.append(part)
            starts.append(starts[-1] + blocks)
        return cls(np.concatenate([np.zeros(0, dtype=np.uint8), *parts]), np.array(starts, dtype=np.int64))

    def select(self, shard: int, number: int) -> int:
        """Find a chosen item: its number in the shard.

        Args:
            shard: number of the shard.
            number: how many chosen items of the shard lie before it.

        Raises:
            IndexError: the shard has fewer chosen items.
        """
        if not 0 <= number < self.sizes[shard]:
            raise IndexError(f"shard {shard} has {self.sizes[shard]} chosen items, not a number {number}")
        first, end = int(self.starts[shard]), int(self.starts[shard + 1])
        rank = int(self._ranks[first]) + number
        block = first + int(np.searchsorted(self._ranks[first : end + 1], rank, side="right")) - 1
        bits = np.unpackbits(self.bits[block * _BLOCK : (block + 1) * _BLOCK], bitorder="little")
        within = int(np.flatnonzero(bits)[rank - int(self._ranks[block])])
        return (block - first) * 8 * _BLOCK + within

    def chosen(self, shard: int) -> npt.NDArray[np.int64]:
        """List the chosen items of a shard in order: (chosen,)."""
        span = slice(self.starts[shard] * _BLOCK, self.starts[shard + 1] * _BLOCK)
        return np.flatnonzero(np.unpackbits(self.bits[span], bitorder="little"))


class Visits:
    """How often an epoch visits each item, as a stack of bitmaps: layer n holds the items that are visited more than n times.

    The visits of a shard are numbered layer by layer, so that every number has one item, and the layers of a plain filter are one.
    """

    def __init__(self, layers: Sequence[Bitmap]) -> None:
        self.layers = tuple(layers)
        self.sizes: npt.NDArray[np.int64] = np.sum([layer.sizes for layer in self.layers], axis=0)

    @classmethod
    def of(cls, visits: Sequence[npt.NDArray[np.int64]]) -> Self:
        """Stack up the number of visits of every item, one array (items,) per shard."""
        most = max((int(each.max(initial=0)) for each in visits), default=0)
        return cls([Bitmap.of(each > layer for each in visits) for layer in range(max(1, most))])

    def item(self, shard: int, number: int) -> tuple[int, int]:
        """Find the item of a visit, and how many visits of that item come before.

        Raises:
            IndexError: the shard has fewer visits.
        """
        left = number
        for before, layer in enumerate(self.layers):
            if left < layer.sizes[shard]:
                return layer.select(shard, left), before
            left -= int(layer.sizes[shard])
        raise IndexError(f"shard {shard} has {self.sizes[shard]} visits, not a number {number}")

    def items(self, shard: int) -> npt.NDArray[np.int64]:
        """List the items of a shard's visits: (visits,)."""
        return np.concatenate([layer.chosen(shard) for layer in self.layers])
