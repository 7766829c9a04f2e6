from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.bitmap import Bitmap, Visits

unhurried = settings(deadline=None)  # a busy machine is no failure


def drawn(sizes: list[int], seed: int, top: int) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, top + 1, size) for size in sizes]


@unhurried
@given(st.lists(st.integers(0, 1_200), min_size=1, max_size=5), st.integers(0, 9), st.integers(1, 3))
def test_every_visit_finds_its_item_and_how_often_it_came_before(sizes: list[int], seed: int, top: int) -> None:
    expected = drawn(sizes, seed, top)
    visits = Visits.of(expected)
    assert visits.sizes.tolist() == [int(each.sum()) for each in expected]
    for shard, each in enumerate(expected):
        found = [visits.item(shard, number) for number in range(int(each.sum()))]
        assert sorted(found) == [(item, before) for item, times in enumerate(each) for before in range(times)]
        assert visits.items(shard).tolist() == [item for item, _ in found]


def test_a_visit_that_a_shard_does_not_have_is_an_error() -> None:
    bitmap = Bitmap.of([np.array([True, False, True])])
    assert [bitmap.select(0, number) for number in (0, 1)] == [0, 2]
    for number in (-1, 2):
        with pytest.raises(IndexError, match="2 chosen items"):
            bitmap.select(0, number)
    with pytest.raises(IndexError, match="2 visits"):
        Visits([bitmap]).item(0, 2)


def test_a_hundred_million_items_take_an_eighth_of_a_byte_each_and_are_found_at_once() -> None:
    shards, size = 10_000, 10_000
    chosen = np.random.default_rng(0).random(size) < 0.01
    bitmap = Bitmap.of(np.roll(chosen, shard) for shard in range(shards))
    held = bitmap.bits.nbytes + bitmap.starts.nbytes + bitmap.sizes.nbytes + bitmap._ranks.nbytes
    assert held < 1.2 * shards * size / 8
    began = time.process_time()
    for shard in range(0, shards, 10):
        number = shard % int(chosen.sum())
        assert bitmap.select(shard, number) == np.flatnonzero(np.roll(chosen, shard))[number]
    assert time.process_time() - began < 1.0
