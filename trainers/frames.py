"""Which frames of a clip are shown: a number of them out of equal intervals, or at a fixed rate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FrameChoice = Literal["middle", "random"]


def intervals(length: int, count: int) -> list[tuple[int, int]]:
    """Cut a clip into equal intervals: (first, last) frame of each, borders truncated to whole frames.

    Args:
        length: frames of the clip, at least 1.
        count: intervals wanted; a clip with fewer frames has one interval per frame.
    """
    if length < 1:
        raise ValueError(f"length={length}: a clip has at least one frame")
    count = min(count, length)
    borders = [int(border) for border in np.linspace(0, length, count + 1)]
    return [(first, after - 1) for first, after in pairwise(borders)]


def sample_frames(
    length: int, count: int, *, choice: FrameChoice = "middle", rng: np.random.Generator | None = None
) -> list[int]:
    """Choose one frame from each of `count` equal intervals; a clip that is too short repeats its last frame.

    `random` draws within each interval but never its last frame, as the published eP-ALM and UnIVAL data loaders do; where an
    interval is a single frame, their rule fails and a sorted random choice of all frames stands in.

    Raises:
        ValueError: `random` without a generator.
    """
    parts = intervals(length, count)
    if choice == "middle":
        chosen = [(first + last) // 2 for first, last in parts]
    elif rng is None:
        raise ValueError("choice='random' needs a generator")
    elif all(first < last for first, last in parts):
        chosen = [int(rng.integers(first, last)) for first, last in parts]
    else:
        chosen = sorted(rng.permutation(length)[: len(parts)].tolist())
    return chosen + [length - 1] * (count - len(chosen))


def frames_at_rate(times: Sequence[float] | NDArray[np.float64], fps: float, *, most: int | None = None) -> list[int]:
    """Choose the frame that is on screen at 0, 1/fps, 2/fps, … seconds after the first one.

    Args:
        times: when each frame comes on screen, in seconds, ascending; the rate may vary.
        fps: frames per second wanted.
        most: stop after so many.
    """
    if fps <= 0 or not len(times):
        raise ValueError(f"fps={fps} of {len(times)} frames: give a positive rate and at least one frame")
    shown = np.asarray(times, dtype=np.float64)
    # A hair of tolerance: a frame at 0.33333 s is on screen at 1/3 s.
    wanted = np.arange(0.0, shown[-1] - shown[0] + 1e-6, 1.0 / fps)[:most] + shown[0]
    found: list[int] = (np.searchsorted(shown, wanted + 1e-6, side="right") - 1).tolist()
    return found
