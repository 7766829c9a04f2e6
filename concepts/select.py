"""The nearest concepts of each picture: exact cosine, exact order, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from concepts.bank import ConceptBank

Halves = npt.NDArray[np.float16]
ROWS = 512  # pictures at a time
COLUMNS = 8192  # concepts at a time; with ROWS, the largest temporary is 32 MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The k best of each row, best first; equal scores by position, the earlier first.

    Attributes:
        indices: (N, k) int64 positions in what was searched.
        scores: (N, k) float32 cosines.
    """

    indices: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


def select_concepts(image_vectors: npt.NDArray[Any], bank: ConceptBank, top_k: int = 15) -> Selection:
    """Find the concepts that are nearest to each picture.

    Args:
        image_vectors: (N, D).
        bank: what to choose from; where it holds fewer than `top_k` concepts, all are returned.
        top_k: K; ViCHA keeps 15.
    """
    return top_cosine(image_vectors, bank.vectors, top_k=top_k)


def top_cosine(
    queries: npt.NDArray[Any], items: npt.NDArray[Any], *, top_k: int, rows: int = ROWS, columns: int = COLUMNS
) -> Selection:
    """Find the `top_k` items of largest cosine for each query.

    Both sides are rounded to float16, as ViCHA computes it. A product of two such numbers is a multiple of 2^-48, so their sums
    in float64 carry no rounding at all while sum(|a·b|) stays below 32, as it does for unit vectors: the result depends on
    neither chunk sizes, threads nor the order of summation, and is the same on every machine.

    Args:
        queries: (N, D).
        items: (M, D).
        top_k: at most this many per query; M where M is smaller.
        rows: queries compared at once.
        columns: items compared at once. Neither changes the result.
    """
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}; at least one concept has to be chosen")
    k = min(top_k, len(items))
    keys = np.empty((len(queries), k), np.uint64)
    for start in range(0, len(queries), rows):
        block = _wide(queries[start : start + rows])
        best: npt.NDArray[np.uint64] | None = None
        for first in range(0, len(items), columns):
            part = _wide(items[first : first + columns])
            found = _largest(_sortable(_cosine(block, part), first), k)
            best = found if best is None else _largest(np.concatenate((best, found), axis=1), k)
        if best is not None:
            keys[start : start + rows] = np.sort(best, axis=1)[:, ::-1]
    return Selection(indices=_position(keys), scores=_score(keys))


def _wide(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.asarray(vectors, np.float16).astype(np.float64)


def _cosine(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    lengths = np.sqrt(np.einsum("nd,nd->n", left, left))[:, None] * np.sqrt(np.einsum("md,md->m", right, right))[None]
    cosine = (left @ right.T) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return np.asarray(cosine, np.float32)


def _sortable(scores: npt.NDArray[np.float32], first: int) -> npt.NDArray[np.uint64]:
    """Pack score and position into one integer each, whose order is: larger score first, then earlier position."""
    bits = np.ascontiguousarray(scores + np.float32(0.0)).view(np.uint32)  # adding 0 turns -0.0 into 0.0
    ordered = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    positions = np.arange(first, first + scores.shape[1], dtype=np.uint64)
    return (ordered << np.uint64(32)) | (np.uint64(0xFFFFFFFF) - positions)


def _largest(keys: npt.NDArray[np.uint64], k: int) -> npt.NDArray[np.uint64]:
    return keys if keys.shape[1] <= k else np.partition(keys, keys.shape[1] - k, axis=1)[:, -k:]


def _position(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    return (np.uint64(0xFFFFFFFF) - (keys & np.uint64(0xFFFFFFFF))).astype(np.int64)


def _score(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.float32]:
    ordered = (keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(ordered >> 31 == 1, ordered & np.uint32((1 << 31) - 1), ~ordered)
    return np.ascontiguousarray(bits).view(np.float32)
