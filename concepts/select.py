"""The nearest concepts of each picture: exact cosine, exact order, in bounded memory, at nearly the speed of a matrix product.

A product in float32 rules out all but a few items per picture, with a margin that covers its rounding at its worst; what is
left is compared again in float64, without any rounding. So the result is that of the exact comparison, whatever the sizes of
the pieces, the number of threads or the device of the product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from concepts.bank import ConceptBank
from concepts.shortlist import CpuScreen, Screen, Shortlist, unit_halves

ROWS = 256  # pictures compared at once: with COLUMNS, scores of 4 MiB, which stay in the processor's cache while they are scanned
COLUMNS = 4096  # concepts compared at once
RESIDENT = 16_384  # pictures whose vectors are held in float32 while all concepts pass by: 32 MiB at 512 dimensions
GROWTH = 2  # how many times more concepts are looked at where near-synonyms left too few
NOTHING = -1  # in `Selection.indices`: this picture has no more concepts


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The k best of each row, best first; equal scores by position, the earlier first.

    Attributes:
        indices: (N, k) int64 positions in what was searched; `NOTHING` where a row has fewer.
        scores: (N, k) float32 cosines; minus infinity where a row has fewer.
    """

    indices: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


def select_concepts(
    image_vectors: npt.NDArray[Any],
    bank: ConceptBank,
    top_k: int = 15,
    *,
    min_score: float = -1.0,
    max_likeness: float = 1.0,
) -> Selection:
    """Choose the concepts of each picture.

    Args:
        image_vectors: (N, D); a row of NaN, which stands for a picture that could not be read, gets none.
        bank: what to choose from; where it holds fewer than `top_k` concepts, all are returned.
        top_k: K at most; ViCHA keeps 15.
        min_score: concepts with a smaller cosine are left out.
        max_likeness: a concept whose cosine with one already chosen is larger says the same in other words and is left out;
            1 keeps all, as ViCHA does.
    """
    if max_likeness >= 1:
        found = top_cosine(image_vectors, bank.vectors, top_k=top_k)
    else:
        found = _unlike(image_vectors, bank.vectors, top_k=top_k, max_likeness=max_likeness)
    too_low = found.scores < min_score
    return Selection(
        indices=np.where(too_low, NOTHING, found.indices),
        scores=np.where(too_low, np.float32(-np.inf), found.scores),
    )


def top_cosine(
    queries: npt.NDArray[Any],
    items: npt.NDArray[Any],
    *,
    top_k: int,
    rows: int = ROWS,
    columns: int = COLUMNS,
    screen: Screen | None = None,
) -> Selection:
    """Find the `top_k` items of largest cosine for each query.

    Both sides are rounded to float16, as ViCHA computes it. A product of two such numbers is a multiple of 2^-48, so their sums
    in float64 carry no rounding at all while sum(|a·b|) stays below 32, as it does for unit vectors: the result depends on
    neither chunk sizes, threads nor the order of summation, and is the same on every machine.

    Args:
        queries: (N, D); a row with a NaN gets nothing.
        items: (M, D), finite.
        top_k: at most this many per query; M where M is smaller.
        rows: queries compared at once.
        columns: items compared at once. Neither changes the result.
        screen: multiplies in float32 and compares; unset: numpy. `concepts.gpu_screen` does it on a GPU.

    Source of the rule: ViCHA (Shukor et al., 2022), concept selection.
    """
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}; at least one concept has to be chosen")
    k, screen = min(top_k, len(items)), screen or CpuScreen()
    indices = np.full((len(queries), k), NOTHING, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    for start in range(0, len(queries), RESIDENT):
        resident = queries[start : start + RESIDENT]
        lists = [
            Shortlist(resident[first : first + rows], items, k, screen=screen)
            for first in range(0, len(resident), rows)
        ]
        for first in range(0, len(items), columns):
            block = unit_halves(items[first : first + columns])
            for shortlist in lists:
                shortlist.offer(block, first)
        for number, shortlist in enumerate(lists):
            place = start + number * rows
            indices[place : place + rows], scores[place : place + rows] = shortlist.best()
    return Selection(indices=indices, scores=scores)


def unlike_first(scores: Sequence[float], likeness: npt.NDArray[Any], *, top_k: int, max_likeness: float) -> list[int]:
    """Walk down a ranking and keep what is unlike everything kept before.

    Args:
        scores: C, best first; stops at the first that is not finite.
        likeness: (C, C) cosines between the candidates.
        top_k: stop when this many are kept.
        max_likeness: a candidate that is more alike to a kept one is left out.

    Returns:
        Positions in the ranking, in order.
    """
    kept: list[int] = []
    for place, score in enumerate(scores):
        if len(kept) == top_k or not np.isfinite(score):
            break
        if not kept or likeness[place, kept].max() <= max_likeness:
            kept.append(place)
    return kept


def _unlike(vectors: npt.NDArray[Any], items: npt.NDArray[Any], *, top_k: int, max_likeness: float) -> Selection:
    """The best concepts that are pairwise unlike; looks further down the ranking of those pictures where too few were."""
    k = min(top_k, len(items))
    indices = np.full((len(vectors), k), NOTHING, np.int64)
    scores = np.full((len(vectors), k), -np.inf, np.float32)
    open_rows, looked_at = np.arange(len(vectors)), GROWTH * k
    while len(open_rows):
        found = top_cosine(vectors[open_rows], items, top_k=looked_at)
        lacking = []
        for row, places, ranked in zip(open_rows.tolist(), found.indices, found.scores, strict=True):
            near = unit_halves(items[places]).astype(np.float64)
            kept = unlike_first(ranked, near @ near.T, top_k=k, max_likeness=max_likeness)
            indices[row, : len(kept)], scores[row, : len(kept)] = places[kept], ranked[kept]
            if len(kept) < k and looked_at < len(items) and np.isfinite(ranked[0]):
                lacking.append(row)
        open_rows = np.asarray(lacking, np.int64)
        looked_at *= GROWTH
    return Selection(indices=indices, scores=scores)
