"""Which captions of a dataset to keep: the best by their cosine with the picture, of all or of each picture; near duplicates once.

Pure rules on arrays; `concepts.similarity` makes the cosines, and the verb `filter` writes what is kept as a column that a
stream reads as a view.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
Kept = npt.NDArray[np.bool_]

_GRAIN = 1e-9  # far below one item of any dataset: 0.29 of 100 are 29, although 0.29 * 100 is less in binary
_ROWS = 1024  # vectors compared at once


def best_of_all(similarities: npt.NDArray[Any], share: float) -> Places:
    """Keep a share of all pairs.

    Args:
        similarities: (N,); those that are no number (a picture that could not be read) are never kept, but count in N.
        share: floor(share · N) pairs at most are kept.

    Returns:
        Their places, the most similar first; equal ones in the order of the data.

    Source: ViCHA (Shukor et al., 2022), filtering of SBU.
    """
    order = np.argsort(-similarities, kind="stable")
    order = order[~np.isnan(similarities[order])]
    return np.asarray(order[: _quota(share, len(similarities))], np.int64)


def best_of_each(
    similarities: npt.NDArray[Any], groups: npt.NDArray[np.integer[Any]], share: float, *, keep_one: bool
) -> Places:
    """Keep a share of the captions of each picture.

    Args:
        similarities: (N,), as in `best_of_all`.
        groups: (N,) number of the picture that each belongs to.
        share: floor(share · n) of a picture's n captions.
        keep_one: keep the best one where that is none. ViCHA's script does not, and so loses every picture with one caption.

    Returns:
        Their places: pictures by number, within one the most similar first.

    Source: ViCHA (Shukor et al., 2022), filtering of Visual Genome.
    """
    order = np.lexsort((np.arange(len(groups)), -similarities, groups))
    _, first, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    quotas = np.floor(share * sizes + _GRAIN).astype(np.int64)
    if keep_one:
        quotas = np.maximum(quotas, 1)
    rank = np.arange(len(order)) - np.repeat(first, sizes)
    chosen = order[rank < np.repeat(quotas, sizes)]
    return np.asarray(chosen[~np.isnan(similarities[chosen])], np.int64)


def with_last_captions(kept: Kept, similarities: npt.NDArray[Any], groups: npt.NDArray[np.integer[Any]]) -> Kept:
    """Add the best caption of every picture that would lose all of them: (N,) → (N,).

    A picture whose captions have no similarity could not be read, and stays without any.
    """
    best = best_of_each(similarities, groups, 0.0, keep_one=True)
    whole = np.zeros(int(groups.max(initial=-1)) + 1, np.bool_)
    whole[groups[kept]] = True
    added = kept.copy()
    added[best[~whole[groups[best]]]] = True
    return added


def near_duplicates(vectors: npt.NDArray[Any], *, likeness: float, rows: int = _ROWS) -> Places:
    """Group pictures that are nearly the same: two whose cosine reaches `likeness`, and whatever hangs together by such pairs.

    Every pair is compared, `rows` times `rows` at once, so memory does not grow with the number of pairs; time does.

    Args:
        vectors: (N, D) embeddings; a row with a NaN is like nothing.
        likeness: cosine from which two pictures count as the same.
        rows: how many are compared at once; does not change the groups but for cosines within float32's rounding of `likeness`.

    Returns:
        (N,) the place of the first picture of each one's group; its own place where it is the first or alone.
    """
    first = np.arange(len(vectors), dtype=np.int64)
    starts = range(0, len(vectors), rows)
    for start in starts:
        left = _units(vectors[start : start + rows])
        for other in starts[: start // rows + 1]:
            right = left if other == start else _units(vectors[other : other + rows])
            here, there = np.nonzero(left @ right.T >= likeness)
            later = here + start > there + other  # each pair once, and nothing with itself
            for one, two in zip((here[later] + start).tolist(), (there[later] + other).tolist(), strict=True):
                _join(first, one, two)
    for place in range(len(first)):  # a root is never behind its members, so one pass flattens all
        first[place] = first[first[place]]
    return first


def _quota(share: float, count: int) -> int:
    return int(np.floor(share * count + _GRAIN))


def _units(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    wide = vectors.astype(np.float32)
    with np.errstate(invalid="ignore"):
        units: npt.NDArray[np.float32] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return units


def _join(first: Places, one: int, two: int) -> None:
    """Union by the smaller root; paths are halved on the way."""
    while first[one] != one:
        first[one] = first[first[one]]
        one = int(first[one])
    while first[two] != two:
        first[two] = first[first[two]]
        two = int(first[two])
    first[max(one, two)] = min(one, two)
