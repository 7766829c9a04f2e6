"""How well boxes are found: overlap of two boxes, and the share of expressions whose box overlaps by at least a half."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

Convention = Literal["continuous", "inclusive_pixels"]

CONVENTIONS: tuple[Convention, ...] = get_args(Convention)
FOUND_AT = 0.5  # overlap from which a box counts as found (RefCOCO; Yu et al., 2016)

WidthBox = tuple[float, float, float, float]  # x0, y0, width, height in pixels, as COCO and RefCOCO are published


def intersection_over_union(
    box: Sequence[float], other: Sequence[float], *, convention: Convention = "continuous"
) -> float:
    """Measure the overlap of two boxes as a share of their union.

    Args:
        box: (x0, y0, width, height), as RefCOCO's files and evaluation have it.
        other: likewise.
        convention: `continuous` takes boxes as areas. `inclusive_pixels` is the evaluation that the papers share: a box
            ends at its last pixel, x0 + width - 1, the overlap counts both end pixels, and an overlap of one pixel's
            width is none.

    Returns:
        Between 0 and 1; 0 where both boxes are empty.
    """
    left, top = max(box[0], other[0]), max(box[1], other[1])
    if convention == "inclusive_pixels":
        right = min(box[0] + box[2] - 1, other[0] + other[2] - 1)
        bottom = min(box[1] + box[3] - 1, other[1] + other[3] - 1)
        shared = (right - left + 1) * (bottom - top + 1) if left < right and top < bottom else 0.0
    else:
        right, bottom = min(box[0] + box[2], other[0] + other[2]), min(box[1] + box[3], other[1] + other[3])
        shared = max(0.0, right - left) * max(0.0, bottom - top)
    union = box[2] * box[3] + other[2] * other[3] - shared
    return shared / union if union > 0 else 0.0


def widths(corners: Sequence[float]) -> WidthBox:
    """(x0, y0, x1, y1), as records hold boxes, to (x0, y0, width, height)."""
    x0, y0, x1, y1 = corners
    return x0, y0, x1 - x0, y1 - y0


def found(overlaps: Iterable[float], *, at: float = FOUND_AT) -> float:
    """Give the percentage of overlaps that reach `at`.

    Raises:
        ValueError: there are none.
    """
    hits = [overlap >= at for overlap in overlaps]
    if not hits:
        raise ValueError("no box to score; check the split")
    return 100 * sum(hits) / len(hits)


def found_by_split(overlaps: Iterable[tuple[str, float]], *, at: float = FOUND_AT) -> dict[str, float]:
    """Give the percentage per split (RefCOCO's val, testA, testB), and over `all`.

    Args:
        overlaps: (split, overlap) of each expression.
        at: overlap from which a box counts as found.
    """
    by_split: defaultdict[str, list[float]] = defaultdict(list)
    for split, overlap in overlaps:
        by_split[split].append(overlap)
    scores = {split: found(values, at=at) for split, values in by_split.items()}
    return scores | {"all": found([value for values in by_split.values() for value in values], at=at)}
