from __future__ import annotations

import itertools
import time
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.plan import EpochOrder, Permutation

unhurried = settings(deadline=None)  # a busy machine is no failure

sizes_of_shards = st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any)


def walk(order: EpochOrder) -> list[tuple[int, int]]:
    return [order.at(position) for position in range(len(order))]


def made(sizes: list[int], **settings: Any) -> EpochOrder:
    return EpochOrder(sizes, **{"dataset_digest": "d", "seed": 1, "epoch": 0, **settings})


@unhurried
@given(st.integers(1, 700), st.integers(0, 2**64 - 1))
def test_a_permutation_meets_every_number_once(n: int, key: int) -> None:
    permutation = Permutation(n, key)
    assert sorted(permutation.at(place) for place in range(n)) == list(range(n))


@unhurried
@given(st.integers(1, 2**62), st.integers(0, 2**64 - 1), st.data())
def test_many_places_at_once_are_the_places_one_by_one(n: int, key: int, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, n - 1), max_size=20))
    permutation = Permutation(n, key)
    together = permutation.at_many(np.array(places, dtype=np.int64))
    assert together.tolist() == [permutation.at(place) for place in places]
    assert all(0 <= number < n for number in together)
    assert len(set(together.tolist())) == len(set(places))


@pytest.mark.parametrize("n", [3, 4])
def test_every_order_of_a_few_numbers_is_equally_likely(n: int) -> None:
    keys = 12_000
    orders = Counter(tuple(Permutation(n, key).at_many(np.arange(n)).tolist()) for key in range(keys))
    possible = list(itertools.permutations(range(n)))
    expected = keys / len(possible)
    chi_squared = sum((orders[order] - expected) ** 2 / expected for order in possible)
    # Mean n! − 1 and variance 2(n! − 1): six standard deviations are never met by chance.
    assert chi_squared < len(possible) - 1 + 6 * (2 * (len(possible) - 1)) ** 0.5


@pytest.mark.parametrize("n", [37, 1000])
def test_each_number_is_equally_likely_at_each_place(n: int) -> None:
    keys, places = 4000, np.array([0, 1, n // 2, n - 1])
    landed = np.stack([Permutation(n, key).at_many(places) for key in range(keys)])
    for column in landed.T:
        halves = np.histogram(column, bins=10, range=(0, n))[0]
        expected = np.array([np.sum((np.arange(n) * 10 // n) == tenth) for tenth in range(10)]) * keys / n
        assert np.sum((halves - expected) ** 2 / expected) < 9 + 6 * 18**0.5
    # Where one place lands says nothing about its neighbour.
    assert abs(np.corrcoef(landed[:, 0], landed[:, 1])[0, 1]) < 4.5 / keys**0.5


def test_places_outside_are_refused() -> None:
    for place in (-1, 5):
        with pytest.raises(IndexError, match="of 5"):
            Permutation(5, 0).at(place)
        with pytest.raises(IndexError, match="of 5"):
            Permutation(5, 0).at_many(np.array([place]))
        with pytest.raises(IndexError, match="of 5 items"):
            made([5]).at(place)
        with pytest.raises(IndexError, match="of 5 items"):
            made([5]).at_many(np.array([place]))


@unhurried
@given(sizes_of_shards, st.integers(1, 8), st.integers(1, 5), st.booleans(), st.integers(0, 2**31))
def test_an_epoch_visits_every_item_once(sizes: list[int], window: int, lanes: int, shuffle: bool, seed: int) -> None:
    order = made(sizes, window=window, lanes=lanes, shuffle=shuffle, seed=seed)
    visited = walk(order)
    assert sorted(visited) == [(shard, item) for shard, size in enumerate(sizes) for item in range(size)]
    shards, items = order.at_many(np.arange(len(order)))
    assert list(zip(shards.tolist(), items.tolist(), strict=True)) == visited


def test_without_shuffling_the_order_is_the_manifests() -> None:
    assert walk(made([2, 0, 3], shuffle=False)) == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]


def test_another_seed_epoch_or_dataset_is_another_order_and_the_same_is_the_same() -> None:
    sizes = [20] * 10
    orders = [
        walk(made(sizes, seed=seed, epoch=epoch, dataset_digest=digest))
        for seed in (1, 2)
        for epoch in (0, 1)
        for digest in ("a", "b")
    ]
    assert all(one != other for one, other in itertools.combinations(orders, 2))
    assert orders[0] == walk(made(sizes, seed=1, epoch=0, dataset_digest="a"))


def test_each_epoch_meets_the_shards_in_another_order() -> None:
    first = {tuple(dict.fromkeys(shard for shard, _ in walk(made([3] * 30, epoch=e, window=1)))) for e in range(8)}
    assert len(first) == 8


def test_windows_of_equal_size_are_shuffled_differently() -> None:
    places = [item for _, item in walk(made([60] * 5, window=1))]
    assert len({tuple(places[start : start + 60]) for start in range(0, 300, 60)}) == 5


def test_a_window_touches_only_its_own_shards_and_mixes_them() -> None:
    order = made([50] * 40, window=8)
    visited = [shard for shard, _ in walk(order)]
    windows = [visited[start : start + 400] for start in range(0, 2000, 400)]
    assert all(len(set(window)) == 8 for window in windows)
    assert sorted(shard for window in windows for shard in set(window)) == list(range(40))
    # Mixed: among 40 draws in a row from 8 shards, some 8 shards are met; a walk shard by shard would meet one or two.
    assert all(len(set(window[start : start + 40])) >= 6 for window in windows for start in range(0, 400, 40))


def test_no_window_is_much_smaller_than_the_others() -> None:
    order = made([10] * 17, window=16)
    visited = [shard for shard, _ in walk(order)]
    assert {len(set(visited[:80])), len(set(visited[80:]))} == {8, 9}


def test_a_lane_walks_its_own_stretch_of_the_epoch() -> None:
    order = made([25] * 16, window=2, lanes=4)
    for lane in range(4):
        assert len({order.at(position)[0] for position in range(lane, 400, 4)}) == 4


def test_a_billion_items_are_found_in_microseconds_and_little_memory() -> None:
    tracemalloc.start()
    order = made([10_000] * 100_000)
    positions = np.arange(600_000_000, 600_004_096)
    began = time.process_time()
    shards, items = order.at_many(positions)
    together_s = time.process_time() - began
    began = time.process_time()
    single = [order.at(position) for position in positions[:200].tolist()]
    single_s = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert single == list(zip(shards[:200].tolist(), items[:200].tolist(), strict=True))
    assert peak < 64 * 2**20  # some tens of bytes per shard; the epoch itself would take 8 GB
    # Measured at 1 and 10 µs; the bounds leave room for tracing and for a busy machine.
    assert together_s / 4096 < 50e-6
    assert single_s / 200 < 1e-3
