"""The few items that may be among a query's best, told by products in float32, and their exact order by sums without rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
# Given (R, D) and (C, D) of unit length, (R,) floors and k: the flat positions in the (R, C) cosines of all that reach their
# row's floor, and those cosines. Floors of minus infinity stand for "not known yet": all that may be among the k best reach them.
Screen = Callable[[Any, Any, Floats, int, float], tuple[Places, Floats]]

GATHER = 8192  # pairs compared exactly at once: 64 MiB of float64 at 512 dimensions


class Shortlist:
    """Keeps, for a few queries, whatever may still be among their k best while items pass by in blocks.

    A cosine in float32 is off by less than `_margin`, so an item that falls short of the k-th best found so far by twice as much
    is out for certain. What stays is little more than k items per query.
    """

    def __init__(self, queries: npt.NDArray[Any], items: npt.NDArray[Any], k: int, *, screen: Screen) -> None:
        """Args:
        queries: (R, D).
        items: (M, D), all of them; looked up when it comes to the exact order.
        k: wanted per query, at most M.
        screen: multiplies and compares.
        """
        self._queries, self._items, self._k, self._screen = queries, items, k, screen
        self._units = unit_halves(queries)
        # Two sums of D products or squares on either side of the root, each step rounded by at most 2^-24 of the whole.
        self._margin = (2 * queries.shape[1] + 8) * 2.0**-24
        self._floors = np.full(len(queries), -np.inf, np.float32)
        self._rows: list[Places] = []
        self._places: list[Places] = []
        self._scores: list[Floats] = []
        self._held = 0

    def offer(self, block: Floats, first: int) -> None:
        """Let a block of items pass by.

        Args:
            block: (C, D), unit length in float32.
            first: the position of its first item among all.
        """
        hits, scores = self._screen(self._units, block, self._floors, self._k, 2 * self._margin)
        self._hold(hits // len(block), hits % len(block) + first, scores)
        if self._held > 2 * self._k * len(self._queries):
            self._tighten()

    def best(self) -> tuple[Places, Floats]:
        """The (R, k) positions, best first and the earlier first among equals, and their cosines; -1 and -inf fill short rows."""
        self._tighten()
        self._cut()
        rows, places, scores = self._held_arrays()
        indices = np.full((len(self._queries), self._k), -1, np.int64)
        cosines = np.full((len(self._queries), self._k), -np.inf, np.float32)
        ranks = _ranks(rows)
        indices[rows, ranks], cosines[rows, ranks] = places, scores
        return indices, cosines

    def _held_arrays(self) -> tuple[Places, Places, Floats]:
        if not self._rows:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
        return np.concatenate(self._rows), np.concatenate(self._places), np.concatenate(self._scores)

    def _hold(self, rows: Places, places: Places, scores: Floats, *, instead: bool = False) -> None:
        if instead:
            self._rows, self._places, self._scores, self._held = [], [], [], 0
        if len(rows):
            self._rows.append(rows)
            self._places.append(places)
            self._scores.append(scores)
            self._held += len(rows)

    def _tighten(self) -> None:
        """Raise the floors to what the items held so far allow, and drop what falls below."""
        rows, places, scores = self._held_arrays()
        order = np.lexsort((-scores, rows))
        rows, places, scores = rows[order], places[order], scores[order]
        kth = np.flatnonzero(_ranks(rows) == self._k - 1)
        self._floors[rows[kth]] = np.maximum(self._floors[rows[kth]], scores[kth] - np.float32(2 * self._margin))
        keep = scores >= self._floors[rows]
        self._hold(rows[keep], places[keep], scores[keep], instead=True)
        if self._held > 2 * self._k * len(self._queries):  # a crowd of near-equals: only the exact order thins it
            self._cut()

    def _cut(self) -> None:
        """Keep exactly the k best of each query."""
        rows, places, _ = self._held_arrays()
        exact = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), GATHER):
            part = slice(start, start + GATHER)
            exact[part] = exact_cosines(self._queries[rows[part]], self._items[places[part]])
        order = np.lexsort((places, -exact, rows))
        rows, places, exact = rows[order], places[order], exact[order]
        keep = _ranks(rows) < self._k
        self._hold(rows[keep], places[keep], exact[keep], instead=True)


class CpuScreen:
    """The `Screen` of numpy. It writes every product into the same memory, since fresh pages cost a tenth of a product."""

    def __init__(self) -> None:
        self._cosines: Floats = np.empty((0, 0), np.float32)
        self._reach: npt.NDArray[np.bool_] = np.empty((0, 0), np.bool_)

    def __call__(self, queries: Floats, block: Floats, floors: Floats, k: int, slack: float) -> tuple[Places, Floats]:
        shape = (len(queries), len(block))
        if self._cosines.shape != shape:
            self._cosines, self._reach = np.empty(shape, np.float32), np.empty(shape, np.bool_)
        cosines = np.matmul(queries, block.T, out=self._cosines)  # (R, C)
        if np.isneginf(floors).all() and k < len(block):
            floors = np.partition(cosines, len(block) - k, axis=1)[:, -k] - np.float32(slack)
        hits = np.flatnonzero(np.greater_equal(cosines, floors[:, None], out=self._reach))
        return hits, cosines.reshape(-1)[hits]


def exact_cosines(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> Floats:
    """The cosines of n pairs of vectors rounded to float16, as (n,) float32: the float64 cosine, rounded once.

    Args:
        left: (n, D).
        right: (n, D).
    """
    one, other = (np.asarray(side, np.float16).astype(np.float64) for side in (left, right))
    products = np.einsum("nd,nd->n", one, other)
    lengths = np.sqrt(np.einsum("nd,nd->n", one, one)) * np.sqrt(np.einsum("nd,nd->n", other, other))
    return np.asarray(products / np.maximum(lengths, np.finfo(np.float64).tiny), np.float32) + np.float32(0.0)


def unit_halves(vectors: npt.NDArray[Any]) -> Floats:
    """Round to float16, then stretch to unit length in float32; zero stays zero.

    Args:
        vectors: (N, D).
    """
    wide = np.asarray(vectors, np.float16).astype(np.float32)
    wide /= np.maximum(np.sqrt(np.einsum("nd,nd->n", wide, wide)), np.finfo(np.float32).tiny)[:, None]
    return wide


def _ranks(rows: Places) -> Places:
    """The place of each entry among those of its row, where equal rows stand together."""
    if not len(rows):
        return rows
    starts = np.flatnonzero(np.diff(rows, prepend=rows[0] - 1))
    return np.arange(len(rows)) - np.repeat(starts, np.diff(starts, append=len(rows)))
