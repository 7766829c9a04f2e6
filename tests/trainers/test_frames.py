"""Frames out of equal intervals, and at a rate."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.frames import frames_at_rate, intervals, sample_frames


@pytest.mark.parametrize(("length", "count"), [(300, 8), (31, 16), (8, 8), (5, 8), (1, 4), (1000, 7)])
def test_intervals_cover_the_clip_without_a_gap(length: int, count: int) -> None:
    parts = intervals(length, count)
    covered = [frame for first, last in parts for frame in range(first, last + 1)]
    assert covered == list(range(length))
    assert len(parts) == min(count, length)


@pytest.mark.parametrize(("length", "count"), [(300, 8), (31, 16), (8, 8), (5, 8), (1, 4)])
def test_random_frames_stay_in_their_intervals_and_follow_the_generator(length: int, count: int) -> None:
    for seed in range(20):
        drawn = sample_frames(length, count, choice="random", rng=np.random.default_rng(seed))
        assert drawn == sample_frames(length, count, choice="random", rng=np.random.default_rng(seed))
        assert len(drawn) == count
        assert drawn == sorted(drawn)
        assert 0 <= drawn[0] <= drawn[-1] < length
        parts = intervals(length, count)
        if all(first < last for first, last in parts):
            assert all(first <= frame < last for frame, (first, last) in zip(drawn, parts, strict=True))


def test_a_short_clip_repeats_its_last_frame() -> None:
    assert sample_frames(3, 6) == [0, 1, 2, 2, 2, 2]


def test_a_rate_takes_the_frame_on_screen_whatever_the_clips_own_rate_does() -> None:
    assert frames_at_rate([0.0, 0.04, 0.08, 0.5, 1.0, 1.04], 2.0) == [0, 3, 4]
    thirds = [number / 30 for number in range(31)]
    assert frames_at_rate(thirds, 3.0) == [0, 10, 20, 30]
    assert frames_at_rate(thirds, 3.0, most=2) == [0, 10]
    assert frames_at_rate([5.0, 5.5], 4.0) == [0, 0, 1]


def test_random_without_a_generator_and_a_rate_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a generator"):
        sample_frames(9, 3, choice="random")
    with pytest.raises(ValueError, match="positive rate"):
        frames_at_rate([0.0], 0.0)
