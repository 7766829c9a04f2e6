from __future__ import annotations

import dataclasses
import json
import time
import tracemalloc
from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shards.address import Address
from shards.errors import ConfigError
from shards.order import SourceSpec, Stream, StreamState

unhurried = settings(deadline=None)  # a busy machine is no failure

sizes = st.lists(st.integers(0, 25), min_size=1, max_size=8).map(tuple).filter(any)


def spec(shard_sizes: tuple[int, ...], digest: str = "d0", weight: float | None = None) -> SourceSpec:
    return SourceSpec(dataset_digest=digest, sizes=shard_sizes, weight=weight)


def lone(shard_sizes: tuple[int, ...] = (30, 30, 40), **settings: Any) -> Stream:
    return Stream({"only": spec(shard_sizes)}, **{"batch_size": 8, "seed": 3, **settings})


def place(address: Address) -> tuple[str, int, int]:
    return address.source, address.shard, address.item


def everything(stream: Stream, steps: range) -> list[Address]:
    return [address for step in steps for address in stream.batch(step)]


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    count = draw(st.integers(1, 3))
    lanes = draw(st.integers(1, 3))
    batch_size = lanes * draw(st.integers(1, 12))
    specs = {f"s{n}": spec(draw(sizes), f"d{n}", draw(st.none() | st.floats(0.1, 9))) for n in range(count)}
    assume(all(each.items >= (batch_size if count == 1 else lanes) for each in specs.values()))
    return Stream(
        specs, batch_size=batch_size, seed=draw(st.integers(0, 9)), lanes=lanes, window=draw(st.integers(1, 5))
    )


@unhurried
@given(streams(), st.data())
def test_any_world_that_divides_the_batch_sees_the_same_global_batches_also_when_it_changes_mid_epoch(
    stream: Stream, data: st.DataObject
) -> None:
    worlds = [world for world in range(1, stream.batch_size + 1) if stream.batch_size % world == 0]
    step = data.draw(st.integers(0, 50))
    for _ in range(4):  # each stretch runs at another world size, in processes that know nothing of the one before
        world = data.draw(st.sampled_from(worlds))
        state = StreamState.from_json(json.loads(json.dumps(stream.state(step).to_json())))
        seen: list[Address] = []
        for rank in range(world):
            fresh = Stream(
                stream.sources, batch_size=stream.batch_size, seed=stream.seed, lanes=stream.lanes, window=stream.window
            )
            seen += fresh.carry(state).slots(state.step, rank, world)
        assert seen == stream.batch(step)
        step += data.draw(st.integers(1, 9))


@unhurried
@given(sizes, st.integers(1, 30), st.integers(0, 3))
def test_an_epoch_of_a_lone_source_repeats_nothing_and_drops_less_than_a_batch(
    shard_sizes: tuple[int, ...], batch_size: int, epoch: int
) -> None:
    assume(sum(shard_sizes) >= batch_size)
    stream = lone(shard_sizes, batch_size=batch_size)
    steps = range(epoch * stream.steps_per_epoch, (epoch + 1) * stream.steps_per_epoch)
    visited = everything(stream, steps)
    assert all(len(stream.batch(step)) == batch_size for step in steps)
    assert {address.epoch for address in visited} == {epoch}
    assert len({place(address) for address in visited}) == len(visited) > sum(shard_sizes) - batch_size


@unhurried
@given(st.lists(sizes, min_size=1, max_size=3), st.integers(1, 30), st.booleans(), st.integers(1, 4))
def test_an_evaluation_drops_nothing_and_repeats_nothing(
    sources: list[tuple[int, ...]], batch_size: int, shuffle: bool, world: int
) -> None:
    batch_size *= world
    specs = {f"s{n}": spec(shard_sizes, f"d{n}") for n, shard_sizes in enumerate(sources)}
    stream = Stream(specs, batch_size=batch_size, seed=0, drop_last=False, shuffle=shuffle)
    visited = [
        address
        for step in range(stream.steps_per_epoch)
        for rank in range(world)
        for address in stream.slots(step, rank, world)
    ]
    expected = [
        (name, shard, item)
        for name, each in specs.items()
        for shard, size in enumerate(each.sizes)
        for item in range(size)
    ]
    assert Counter(map(place, visited)) == Counter(expected)
    if not shuffle:
        assert list(map(place, visited)) == expected


def test_in_a_mixture_each_source_runs_through_its_own_epochs_without_a_gap() -> None:
    stream = Stream(
        {"large": spec((40, 50), "a", weight=3), "small": spec((7, 6), "b", weight=1)}, batch_size=10, seed=0
    )
    visited = everything(stream, range(200))
    for name, each in stream.sources.items():
        mine = [address for address in visited if address.source == name]
        for start in range(0, len(mine) - each.items + 1, each.items):
            epoch = mine[start : start + each.items]
            assert {address.epoch for address in epoch} == {start // each.items}
            assert len({place(address) for address in epoch}) == each.items
    assert abs(sum(address.source == "small" for address in visited) - 500) <= 2


def test_without_weights_sources_mix_in_proportion_to_their_sizes() -> None:
    stream = Stream({"a": spec((300,), "a"), "b": spec((100,), "b")}, batch_size=100, seed=0)
    assert Counter(address.source for address in stream.batch(5)) == {"a": 75, "b": 25}


def test_a_rank_on_its_own_lanes_stays_on_its_own_shards() -> None:
    stream = lone((32,) * 16, batch_size=16, lanes=4, window=2)
    shards = [
        {address.shard for step in range(stream.steps_per_epoch) for address in stream.slots(step, rank, 4)}
        for rank in range(4)
    ]
    assert sorted(shard for own in shards for shard in own) == list(range(16))


def test_resuming_goes_on_at_the_next_batch() -> None:
    stream = lone()
    state = StreamState.from_json(json.loads(json.dumps(stream.state(17).to_json())))
    assert state.step == 17
    assert lone().carry(state).batch(17) == stream.batch(17)


@unhurried
@given(st.sampled_from([1, 2, 3, 4, 6, 8, 12]), st.sampled_from([1, 2, 3, 4, 6, 8, 12]), st.integers(0, 60))
def test_another_batch_size_goes_on_at_the_very_sample(old: int, new: int, step: int) -> None:
    before = lone((50, 50), batch_size=old)
    after = lone((50, 50), batch_size=new).carry(before.state(step))
    epoch = step // before.steps_per_epoch
    done = everything(before, range(epoch * before.steps_per_epoch, step))
    rest = everything(after, range(step, after.steps_of(epoch + 1)))
    assert {address.epoch for address in [*done, *rest]} <= {epoch}
    assert len({place(address) for address in [*done, *rest]}) == len(done) + len(rest) > 100 - max(old, new)
    assert [address.position for address in [*done, *rest]] == list(range(len(done) + len(rest)))


def test_another_batch_size_goes_on_in_a_mixture() -> None:
    specs = {"a": spec((40,), "a", weight=2), "b": spec((9,), "b", weight=1)}
    before, after = (Stream(specs, batch_size=size, seed=0) for size in (6, 4))
    after = after.carry(before.state(10))
    assert everything(after, range(10, 13)) == everything(before, range(10, 12))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lone((30, 30, 40), seed=4), "seed 3 and this run has 4"),
        (lone((30, 30, 40), window=4), "window 16 and this run has 4"),
        (lone((30, 30, 40), lanes=2), "lanes 1 and this run has 2"),
        (lone((30, 30, 40), shuffle=False), "shuffle True and this run has False"),
        (Stream({"only": spec((30, 30, 40), "d1")}, batch_size=8, seed=3), r"streams\.only is the .*d0 .*100.* is d1"),
        (Stream({"else": spec((30, 30, 40))}, batch_size=8, seed=3), "mixes only and this run else"),
        (Stream({"only": spec((150, 150, 200))}, batch_size=8, seed=3), "of 100 items and this run's is .*of 500"),
        (Stream({"only": spec((30, 30, 40), weight=2)}, batch_size=8, seed=3), "weight 100.0 .*2.0"),
    ],
)
def test_the_state_of_another_order_is_refused_by_what_differs(other: Stream, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        other.carry(lone().state(5))


def test_a_state_of_another_version_is_refused() -> None:
    stored = lone().state(5).to_json()
    with pytest.raises(ConfigError, match="schema 99"):
        StreamState.from_json({**stored, "schema": 99})
    with pytest.raises(ConfigError, match="fields"):
        StreamState.from_json({name: value for name, value in stored.items() if name != "seed"})


def test_the_state_is_a_few_numbers_whatever_the_size_of_the_dataset() -> None:
    vast = Stream({"vast": spec((10_000,) * 50_000)}, batch_size=4096, seed=0)
    assert len(json.dumps(vast.state(100_000).to_json())) < 400
    assert len(vast.batch(100_000)) == 4096


def test_a_billion_items_are_resumed_within_fifty_milliseconds_and_a_hundred_megabytes() -> None:
    sources = {"vast": spec((10_000,) * 100_000)}
    stored = json.dumps(Stream(sources, batch_size=1024, seed=0).state(0).to_json())

    def resume(step: int) -> float:
        began = time.process_time()
        state = dataclasses.replace(StreamState.from_json(json.loads(stored)), step=step)
        stream = Stream(sources, batch_size=1024, seed=0)
        assert len(stream.carry(state).batch(state.step)) == 1024
        return time.process_time() - began

    early, late = (min(resume(step) for _ in range(5)) for step in (1, 900_000))
    assert max(early, late) < 0.05
    tracemalloc.start()
    resume(900_000)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_a_reserve_is_always_the_same_and_another_for_another_attempt() -> None:
    stream = lone((500, 500))
    address = stream.batch(4)[2]
    reserves = [stream.reserve(address, attempt) for attempt in range(20)]
    assert reserves == [lone((500, 500)).reserve(address, attempt) for attempt in range(20)]
    assert len({place(reserve) for reserve in reserves}) > 15
    assert {reserve.epoch for reserve in reserves} == {address.epoch}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 0}, "must be positive"),
        ({"batch_size": 9, "lanes": 2}, "lanes must divide"),
        ({"batch_size": 101}, "fewer than one batch"),
        ({"lanes": 2, "drop_last": False}, "lanes=2 needs drop_last"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_anything_starts(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        lone(**settings)


def test_a_source_too_small_for_the_lanes_of_a_mixture_names_the_lanes() -> None:
    sources = {name: SourceSpec(dataset_digest=name, sizes=(size,)) for name, size in (("a", 40), ("b", 3))}
    with pytest.raises(ConfigError, match=r"streams\.b holds 3 items, fewer than one batch needs \(4\); lower lanes"):
        Stream(sources, batch_size=8, lanes=4, seed=0)


@pytest.mark.parametrize(("rank", "world"), [(0, 3), (2, 2), (-1, 2), (0, 0)])
def test_a_world_that_does_not_divide_the_batch_is_refused(rank: int, world: int) -> None:
    with pytest.raises(ConfigError, match=f"over {world} processes"):
        lone().slots(0, rank, world)


def test_a_step_before_the_first_is_an_error() -> None:
    with pytest.raises(IndexError, match="step -1"):
        lone().batch(-1)


def test_a_state_cannot_be_changed_behind_the_streams_back() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        lone().state(3).step = 4  # type: ignore[misc]
