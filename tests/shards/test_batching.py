from __future__ import annotations

import json
import time
from collections import Counter
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shards.address import Address
from shards.batching import TokenStream, cut
from shards.errors import ConfigError
from shards.order import SourceSpec, StreamState, WeightChange

unhurried = settings(deadline=None)  # a busy machine is no failure


class Made:
    """Costs drawn from a seed, as an index would tell them."""

    def __init__(self, sizes: tuple[int, ...], *, seed: int = 0, most: int = 60) -> None:
        rng = np.random.default_rng(seed)
        self.items = [np.minimum(rng.poisson(rng.integers(4, 14), size) + 1, most).astype(np.int64) for size in sizes]
        self.levels = np.unique(np.concatenate(self.items))
        self.counts = np.array(
            [[np.sum(each == level) for level in self.levels] for each in self.items], dtype=np.int32
        )
        self.digest = f"made-{seed}"

    def of_shard(self, shard: int) -> NDArray[np.int64]:
        return self.items[shard]


def lone(sizes: tuple[int, ...], *, costs: Made | None = None, **settings: Any) -> TokenStream:
    spec = SourceSpec(dataset_digest="d", sizes=sizes)
    wanted = {"batch_tokens": 960, "parts": 8, "seed": 1, "window": 3, **settings}
    return TokenStream({"x": spec}, {"x": costs or Made(sizes)}, **wanted)


def place(address: Address) -> tuple[str, int, int]:
    return address.source, address.shard, address.item


def padded(stream: TokenStream, costs: Made, step: int) -> list[int]:
    """Items times the greatest cost, of each part of a batch."""
    spent = []
    for part in stream.parts(step, 0, 1, stream.batch_parts):
        slots = stream.slots(step, 0, 1)
        tokens = [int(costs.of_shard(slots[slot].shard)[slots[slot].item]) for slot in part]
        spent.append(len(tokens) * max(tokens))
    return spent


@unhurried
@given(st.lists(st.integers(0, 300), min_size=1, max_size=9).map(tuple), st.integers(0, 99), st.sampled_from([1, 2, 8]))
def test_an_epoch_visits_no_item_twice_leaves_hardly_any_out_and_no_part_spends_more_than_its_share(
    sizes: tuple[int, ...], seed: int, parts: int
) -> None:
    if sum(sizes) < 2 * parts:
        return
    costs = Made(sizes, seed=seed, most=40)
    stream = lone(sizes, costs=costs, parts=parts, seed=seed)
    first = stream.steps_of(1)
    for epoch, steps in ((0, range(first)), (1, range(first, stream.steps_of(2)))):
        visited = [address for step in steps for address in stream.batch(step)]
        assert {address.epoch for address in visited} == {epoch}
        assert len(set(map(place, visited))) == len(visited) > sum(sizes) - parts
        assert all(max(padded(stream, costs, step)) <= 960 // parts for step in steps)


@unhurried
@given(st.integers(0, 99), st.sampled_from([2, 4, 8]))
def test_all_parts_of_a_batch_hold_equally_many_items(seed: int, parts: int) -> None:
    stream = lone((60, 0, 171, 9), parts=parts, seed=seed)
    for step in range(stream.steps_of(2)):
        assert len({len(stream.slots(step, rank, parts)) for rank in range(parts)}) == 1


def test_what_an_epoch_leaves_out_is_drawn_anew_and_is_not_always_the_cheapest() -> None:
    sizes, costs = (21,), Made((21,), seed=4, most=40)
    stream = lone(sizes, costs=costs)
    missing: Counter[int] = Counter()
    for epoch in range(40):
        steps = range(stream.steps_of(epoch), stream.steps_of(epoch + 1))
        seen = {address.item for step in steps for address in stream.batch(step)}
        missing.update(set(range(21)) - seen)
    assert sum(missing.values()) == 40 * 5
    assert len(missing) == 21
    assert max(missing.values()) < 25


@unhurried
@given(
    st.dictionaries(st.integers(1, 50), st.integers(0, 30), min_size=1, max_size=6),
    st.sampled_from([1, 2, 3, 8]),
)
def test_no_batch_of_a_stretch_outgrows_its_share_however_few_items_are_left_for_the_last(
    items: dict[int, int], parts: int
) -> None:
    levels = np.array(sorted(items), dtype=np.int64)
    counts = np.array([[items[level] for level in levels.tolist()]], dtype=np.int64)
    found = cut(levels, counts, tokens=50 * parts, parts=parts)
    costs = np.repeat(levels, counts[0])[::-1]
    ends = found.ends(0)
    assert len(costs) - ends[-1] < parts
    for start, end in pairwise(ends.tolist()):
        assert end - start >= parts
        assert -(-(end - start) // parts) * costs[start] <= 50


@unhurried
@given(st.integers(0, 99), st.sampled_from([1, 2, 8]))
def test_a_reserve_costs_no_more_than_its_batch_has_room_for(seed: int, parts: int) -> None:
    sizes = (40, 0, 170, 9)
    costs = Made(sizes, seed=seed)
    stream = lone(sizes, costs=costs, parts=parts, seed=seed)
    for step in range(stream.steps_of(2)):
        for part in (stream.slots(step, rank, parts) for rank in range(parts)):
            damaged = part[step % len(part)]
            reserves = [stream.reserve(damaged, attempt) for attempt in range(12)]
            assert {reserve.epoch for reserve in reserves} == {damaged.epoch}
            assert len(set(reserves)) > 1
            dearest = max(int(costs.of_shard(each.shard)[each.item]) for each in (*part, *reserves))
            assert dearest * len(part) <= 960 // parts


@settings(deadline=None, max_examples=25)  # each builds sixteen streams
@given(st.integers(0, 400), st.integers(0, 99))
def test_every_world_and_every_restart_sees_the_same_batches(step: int, seed: int) -> None:
    sizes = (400, 10, 0, 700, 350)
    stream = lone(sizes, seed=seed)
    state = StreamState.from_json(json.loads(json.dumps(stream.state(step).to_json())))
    for world in (1, 2, 4, 8):
        seen: list[Address] = []
        for rank in range(world):
            fresh = lone(sizes, seed=seed)
            seen += fresh.carry(state).slots(state.step, rank, world)
            assert sum(map(len, fresh.parts(step, rank, world, 8 // world))) == len(fresh.slots(step, rank, world))
        assert seen == stream.batch(step)


def test_long_stretches_waste_little_and_parts_come_out_alike() -> None:
    sizes = (2_000,) * 40
    costs = Made(sizes)
    stream = lone(sizes, costs=costs, batch_tokens=8 * 1_024)
    fills, spreads = [], []
    for step in range(stream.steps_of(1)):
        slots = stream.slots(step, 0, 1)
        spent = [
            sum(int(costs.items[slots[slot].shard][slots[slot].item]) for slot in part)
            for part in stream.parts(step, 0, 1, 8)
        ]
        fills.append(sum(spent) / (8 * 1_024))
        spreads.append((max(spent) - min(spent)) / np.mean(spent))
    assert np.mean(fills) > 0.97
    assert max(spreads) < 0.02


def test_items_too_few_for_every_part_are_left_out_rather_than_leaving_a_part_empty() -> None:
    levels, counts = np.array([90]), np.array([[17], [16], [24], [31], [7]])
    found = cut(levels, counts, tokens=8 * 100, parts=8)
    assert [np.diff(found.ends(stretch)).tolist() for stretch in range(4)] == [[8, 8], [8, 8], [8, 8, 8], [8, 8, 8]]
    assert found.batches.tolist() == [2, 2, 3, 3, 0]


def test_a_mixture_gives_each_step_to_one_source_and_weights_are_shares_of_steps() -> None:
    sizes = {"a": (900, 800), "b": (300,)}
    specs = {name: SourceSpec(dataset_digest=name, sizes=each, weight=1, group=name) for name, each in sizes.items()}
    costs = {name: Made(each, seed=len(name)) for name, each in sizes.items()}
    stream = TokenStream(
        specs, costs, batch_tokens=960, parts=4, seed=0, changes=[WeightChange(step=40, weights={"b": 1})], until="b"
    )
    owners = [{address.source for address in stream.slots(step, 1, 2)} for step in range(60)]
    assert all(len(owner) == 1 for owner in owners)
    assert Counter(name for owner in owners[:40] for name in owner) == {"a": 20, "b": 20}
    assert {name for owner in owners[40:] for name in owner} == {"b"}


def test_a_far_step_of_a_vast_source_is_found_without_planning_those_before() -> None:
    shards, size = 10_000, 1_000

    class Vast(Made):
        asked: ClassVar[set[int]] = set()

        def of_shard(self, shard: int) -> NDArray[np.int64]:
            self.asked.add(shard)
            return self.items[0]

    costs = Vast((size,))
    costs.counts = np.repeat(costs.counts, shards, axis=0)
    stream = lone((size,) * shards, costs=costs, batch_tokens=65_536, window=16)
    began = time.process_time()
    batch = stream.batch(1_000)
    assert time.process_time() - began < 1.0
    assert len(costs.asked) < 2_000
    assert len(batch) > 3_000


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_tokens": 80}, "leaves 10; raise batch_tokens"),
        ({"parts": 400, "batch_tokens": 40_000}, "holds 300 items, fewer than batch_parts=400"),
    ],
)
def test_what_fits_no_batch_is_refused_before_anything_starts(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        lone((300,), **settings)


def test_other_settings_of_the_plan_and_worlds_that_divide_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"plan .*960.*2000"):
        lone((300,), batch_tokens=2_000).carry(lone((300,)).state(2))
    with pytest.raises(ConfigError, match="batch_parts=8 cannot be split over 3"):
        lone((300,)).slots(0, 0, 3)
