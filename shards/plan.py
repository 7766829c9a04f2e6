"""The order of an epoch as a closed form: no list of the epoch is ever made, and any position is found in microseconds.

Shards are permuted, the permuted shards are cut into windows, and the items of a window are permuted together. Memory is a few
numbers per shard, whatever the number of items.

How good a shuffle that is depends on the window alone: 1,024 shards of 256 items in batches of 256, measured by
`benchmarks/shuffle_quality.py` beside true permutations of the same items.

    window            displacement  shards in a batch  two of one shard, over chance  meeting again next epoch, over chance
    4                 0.337           4.0              256                            64
    16                0.337          16.0               64                             4.8
    64                0.337          62.9               16                             1.2
    256               0.337         162                  4.0                           1.0
    true permutation  0.333         227                  1.0                           1.0

Shards come from the whole dataset whatever the window, so displacement tells nothing apart. Where shards hold items that belong
together (one raw folder, one film), choose a window of at least a quarter of a batch's items; where raw items came in no order
worth noticing, 16 serves, and touches fewer files.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shards.address import keyed_bits

Integers = NDArray[np.int64]

# Eight rounds: over thousands of keys, no bias of where an item lands was left to see even at domains of a few items.
_ROUNDS = 8
_RECENT_WINDOWS = 64  # a walk stays in one window (one per lane) for long; this bounds what random access keeps
_BITS = (1 << 64) - 1
_STIR_A, _STIR_B = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # the multipliers of the SplitMix64 finaliser


class Permutation:
    """A keyed bijection of `range(n)` in constant memory.

    A Feistel network over pairs (left, right) with left < a, right < b and a·b the least such product that holds n numbers;
    halves are mixed by addition modulo a or b, so that a and b need be no powers of two. A value that falls outside
    `range(n)` is sent round again (cycle walking), which happens less than once in √n times.

    Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (2002), generalised Feistel and cycle walking.
    """

    __slots__ = ("_keys", "_left", "_right", "n")

    def __init__(self, n: int, key: int) -> None:
        """Key a permutation.

        Args:
            n: how many numbers are permuted, below 2^62.
            key: 64 bits; another key gives an unrelated permutation.
        """
        self.n = n
        self._left = max(1, math.isqrt(max(n - 1, 0)) + 1)
        self._right = max(1, -(-n // self._left))
        self._keys = tuple(keyed_bits("round", key, turn) for turn in range(_ROUNDS))

    def at(self, place: int) -> int:
        """Say which number stands at a place.

        Raises:
            IndexError: the place is outside `range(n)`.
        """
        if not 0 <= place < self.n:
            raise IndexError(f"place {place} is outside a permutation of {self.n}")
        while True:
            left, right = divmod(place, self._right)
            for turn, key in enumerate(self._keys):
                if turn % 2 == 0:
                    left = (left + _stir(right, key)) % self._left
                else:
                    right = (right + _stir(left, key)) % self._right
            place = left * self._right + right
            if place < self.n:
                return place

    def at_many(self, places: Integers) -> Integers:
        """Say which numbers stand at many places: (M,) → (M,), equal to `at` one by one."""
        if places.size and not (places.min() >= 0 and places.max() < self.n):
            raise IndexError(f"a place is outside a permutation of {self.n}")
        values = self._encrypt(places.astype(np.uint64))
        outside = np.flatnonzero(values >= self.n)
        while outside.size:
            values[outside] = self._encrypt(values[outside])
            outside = outside[values[outside] >= self.n]
        return values.astype(np.int64)

    def _encrypt(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left_size, right_size = np.uint64(self._left), np.uint64(self._right)
        left, right = values // right_size, values % right_size
        for turn, key in enumerate(self._keys):
            if turn % 2 == 0:
                left = (left + _stir_many(right, key) % left_size) % left_size
            else:
                right = (right + _stir_many(left, key) % right_size) % right_size
        return left * right_size + right


class EpochOrder:
    """Position in an epoch → (shard, item), a pure function of (dataset digest, seed, epoch).

    With `lanes` above 1, position p belongs to lane p mod lanes, and each lane walks its own stretch of the shuffled epoch:
    readers that keep to a lane keep to their own shards, and every item is still visited once.

    Attributes:
        shards: (shards,) rows of the manifest in the order of the epoch.
        window_rows: (windows + 1,) borders of the windows in `shards`.
        window_starts: (windows + 1,) the same borders counted in items.
    """

    def __init__(
        self,
        sizes: Sequence[int] | Integers,
        *,
        dataset_digest: str,
        seed: int,
        epoch: int,
        window: int = 16,
        shuffle: bool = True,
        lanes: int = 1,
    ) -> None:
        """Lay out the shards of an epoch.

        Args:
            sizes: items of each shard, in manifest order.
            dataset_digest: the manifest's digest; another dataset gets another order.
            seed: of the run.
            epoch: number of the epoch, from 0.
            window: how many shards are shuffled together; more mix better and touch more files at once.
            shuffle: False gives the manifest's own order.
            lanes: into how many stretches the epoch is dealt.
        """
        counts = np.asarray(sizes, dtype=np.int64)
        self._total = int(counts.sum())
        self._lanes = lanes
        self._shuffle = shuffle
        self._address = (dataset_digest, seed, epoch)
        if shuffle:
            shards = Permutation(len(counts), keyed_bits("shards", *self._address))
            self.shards = shards.at_many(np.arange(len(counts), dtype=np.int64))
        else:
            self.shards = np.arange(len(counts), dtype=np.int64)
        # First position of each shard in the shuffled order of shards; one more for the end.
        self._starts = np.concatenate([[0], np.cumsum(counts[self.shards])]).astype(np.int64)
        windows = max(1, -(-len(counts) // window))
        # Cut evenly: a last window of one shard would be hardly shuffled.
        cuts = np.arange(windows + 1, dtype=np.int64) * len(counts) // windows
        self.window_rows, self.window_starts = cuts, self._starts[cuts]
        self._recent: dict[int, Permutation] = {}

    def __len__(self) -> int:
        return self._total

    def at(self, position: int) -> tuple[int, int]:
        """Find the shard (manifest row) and the item within it.

        Raises:
            IndexError: the position is outside the epoch.
        """
        if not 0 <= position < self._total:
            raise IndexError(f"position {position} is outside an epoch of {self._total} items")
        place = self._stretch(position)
        if self._shuffle:
            window = bisect_right(self.window_starts, place) - 1
            start = int(self.window_starts[window])
            place = start + self._window_permutation(window).at(place - start)
        row = bisect_right(self._starts, place) - 1
        return int(self.shards[row]), place - int(self._starts[row])

    def at_many(self, positions: Integers) -> tuple[Integers, Integers]:
        """Find many positions at once: (M,) → shards (M,) and items (M,), equal to `at` one by one."""
        if positions.size and not (positions.min() >= 0 and positions.max() < self._total):
            raise IndexError(f"a position is outside an epoch of {self._total} items")
        places = np.where(
            positions < self._total - self._total % self._lanes,
            positions % self._lanes * (self._total // self._lanes) + positions // self._lanes,
            positions,
        )
        if self._shuffle:
            windows = np.searchsorted(self.window_starts, places, side="right") - 1
            for window in sorted(set(windows.tolist())):
                chosen = windows == window
                start = self.window_starts[window]
                places[chosen] = start + self._window_permutation(window).at_many(places[chosen] - start)
        rows = np.searchsorted(self._starts, places, side="right") - 1
        return self.shards[rows], places - self._starts[rows]

    def _stretch(self, position: int) -> int:
        # The few items that do not divide among the lanes come last, in their own order.
        if position >= self._total - self._total % self._lanes:
            return position
        return position % self._lanes * (self._total // self._lanes) + position // self._lanes

    def _window_permutation(self, window: int) -> Permutation:
        found = self._recent.get(window)
        if found is None:
            if len(self._recent) >= _RECENT_WINDOWS:
                self._recent.clear()
            size = int(self.window_starts[window + 1] - self.window_starts[window])
            found = self._recent[window] = Permutation(size, keyed_bits("items", *self._address, window))
        return found


def _stir(value: int, key: int) -> int:
    value = ((value ^ key) * _STIR_A) & _BITS
    value = ((value ^ (value >> 31)) * _STIR_B) & _BITS
    return value ^ (value >> 30)


def _stir_many(values: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    values = (values ^ np.uint64(key)) * np.uint64(_STIR_A)
    values = (values ^ (values >> np.uint64(31))) * np.uint64(_STIR_B)
    return values ^ (values >> np.uint64(30))
