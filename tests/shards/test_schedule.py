from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import ConfigError
from shards.schedule import Schedule, tempered

unhurried = settings(deadline=None)  # a busy machine is no failure

NAMES = ("a", "b", "c")
weights = st.fixed_dictionaries({name: st.floats(0.01, 9) | st.just(0.0) for name in NAMES}).filter(
    lambda drawn: any(drawn.values())
)


@st.composite
def schedules(draw: st.DrawFn) -> list[tuple[int, dict[str, float]]]:
    starts = sorted(draw(st.sets(st.integers(1, 5_000), max_size=3)))
    return [(start, draw(weights)) for start in (0, *starts)]


@unhurried
@given(schedules(), st.integers(0, 6_000), st.integers(1, 2_000))
def test_counters_go_on_across_changes_of_weight_as_if_walked(
    stretches: list[tuple[int, dict[str, float]]], start: int, length: int
) -> None:
    schedule = Schedule(NAMES, stretches)
    sources, before = schedule.run(start, length)
    counts = schedule.counts(start)
    assert counts.sum() == start
    for source, earlier in zip(sources.tolist(), before.tolist(), strict=True):
        assert counts[source] == earlier
        counts[source] += 1
    assert schedule.counts(start + length).tolist() == counts.tolist()


@unhurried
@given(schedules())
def test_within_a_stretch_every_window_of_a_thousand_keeps_its_shares(
    stretches: list[tuple[int, dict[str, float]]],
) -> None:
    schedule = Schedule(NAMES, stretches)
    for number, (start, wanted) in enumerate(stretches):
        stop = stretches[number + 1][0] if number + 1 < len(stretches) else start + 3_000
        if stop - start < 1_000:
            continue
        marks = schedule.run(start, stop - start)[0][:, None] == np.arange(3)
        walked = np.concatenate([np.zeros((1, 3), dtype=np.int64), np.cumsum(marks, axis=0)])
        shares = np.array([wanted[name] for name in NAMES]) / sum(wanted.values())
        assert np.abs(walked[1_000:] - walked[:-1_000] - 1_000 * shares).max() <= 1 + 1e-6


def test_a_source_of_weight_nought_rests_until_its_turn_comes() -> None:
    schedule = Schedule(("a", "b"), [(0, {"a": 1, "b": 0}), (100, {"a": 1, "b": 1}), (200, {"b": 2})])
    sources, before = schedule.run(0, 300)
    assert sources[:100].tolist() == [0] * 100
    assert np.bincount(sources[100:200]).tolist() == [50, 50]
    assert sources[200:].tolist() == [1] * 100
    assert before[200:].tolist() == list(range(50, 150))


def test_temperature_brings_small_sources_forward() -> None:
    sizes = {"vast": 8e9, "small": 1e6, "off": 0.0}
    assert tempered(sizes, 1) == sizes
    square = tempered(sizes, 2)
    assert square["vast"] / square["small"] == pytest.approx(8_000**0.5)
    assert square["off"] == 0
    even = tempered(sizes, 1e9)
    assert even["vast"] / even["small"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"a": -1.0}, r"streams\.a\.weight is -1"),
        ({"d": 1.0}, "'d', which is no stream"),
        ({"a": 0.0}, "draws nothing"),
    ],
)
def test_weights_that_draw_nothing_or_nobody_are_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Schedule(NAMES, [(0, {"a": 1}), (10, wrong)])
