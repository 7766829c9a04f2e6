from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shards.errors import ConfigError
from shards.mixture import CYCLE, Mixture

unhurried = settings(deadline=None)  # a busy machine is no failure

weight = st.floats(1e-6, 1e6) | st.integers(1, 9).map(float) | st.sampled_from([1 / 3, 0.001, 0.4995])
mixtures = st.lists(weight, min_size=1, max_size=8).map(
    lambda values: {f"s{n}": value for n, value in enumerate(values)}
)
starts = st.integers(0, 10**12)


def shares(weights: dict[str, float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    total = sum(weights.values())
    return np.array([weight / total for weight in weights.values()])


def running_counts(
    weights: dict[str, float], start: int, length: int
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Draws of each source before each of `length` + 1 numbers, from the first on: (length + 1, S)."""
    drawn = Mixture(weights).run(start, length)[0]
    marks = drawn[:, None] == np.arange(len(weights))
    return np.concatenate([np.zeros((1, len(weights)), dtype=np.int64), np.cumsum(marks, axis=0)])


@unhurried
@given(mixtures, starts)
@example({"a": 0.9999, "b": 0.9999, "c": 2.0001}, 0)
@example({"a": 1.0, "b": 1.0, "c": 1.0}, 10**9)
@example({f"s{n}": 1 + n / 7 for n in range(8)}, 123_456_789)
def test_every_window_of_a_thousand_is_within_one_draw_of_its_share(weights: dict[str, float], start: int) -> None:
    counts = running_counts(weights, start, 4 * CYCLE)
    windows = counts[CYCLE:] - counts[:-CYCLE]
    assert np.abs(windows - CYCLE * shares(weights)).max() <= 1 + 1e-6


@unhurried
@given(mixtures, starts, st.integers(0, 3000))
def test_counters_jump_to_any_step_as_if_they_had_walked(weights: dict[str, float], start: int, length: int) -> None:
    mixture = Mixture(weights)
    before, after = mixture.counts(start), mixture.counts(start + length)
    assert sum(before.values()) == start
    walked = running_counts(weights, start, length)[-1]
    assert [after[name] - before[name] for name in mixture.names] == walked.tolist()


@unhurried
@given(mixtures, starts)
def test_each_draw_knows_how_often_its_source_was_drawn(weights: dict[str, float], start: int) -> None:
    mixture = Mixture(weights)
    sources, before = mixture.run(start, 50)
    for place in (0, 1, 17, 49):
        draw = mixture.source_at(start + place)
        assert (mixture.names.index(draw.source), draw.before) == (sources[place], before[place])
        assert mixture.counts(start + place)[draw.source] == draw.before


@unhurried
@given(mixtures)
def test_shares_hold_in_the_long_run(weights: dict[str, float]) -> None:
    counts = np.array(list(Mixture(weights).counts(10**9).values()))
    assert (
        np.abs(counts - 1e9 * shares(weights)).max() < 2_000
    )  # a drift of 2e-6; rounding to whole draws per thousand: 5e-4


def test_short_stretches_are_mixed_too() -> None:
    counts = running_counts({"a": 5, "b": 3, "c": 2}, 0, 5000)
    windows = counts[20:] - counts[:-20]
    assert np.abs(windows - [10, 6, 4]).max() <= 2


def test_a_tiny_source_is_not_forgotten() -> None:
    counts = Mixture({"vast": 1e6, "tiny": 1.0}).counts(10**8)
    assert abs(counts["tiny"] - 100) <= 2


def test_the_count_at_a_far_step_takes_no_longer_than_at_a_near_one() -> None:
    mixture = Mixture({f"s{n}": 1 + n / 7 for n in range(8)})
    began = time.process_time()
    for _ in range(20):
        mixture.counts(10**15)
    assert (time.process_time() - began) / 20 < 0.01


def test_only_positive_finite_weights_mix() -> None:
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"streams\.b\.weight"):
            Mixture({"a": 1.0, "b": wrong})
    with pytest.raises(ConfigError, match="at least one source"):
        Mixture({})
