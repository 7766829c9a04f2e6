"""What may change in the middle of a run: batch size and weights; and what ends an epoch of a mixture."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.address import Address
from shards.errors import ConfigError
from shards.order import SourceSpec, Stream, StreamState, WeightChange

unhurried = settings(deadline=None)  # a busy machine is no failure


def spec(*sizes: int, digest: str = "d", **settings: Any) -> SourceSpec:
    return SourceSpec(dataset_digest=digest, sizes=sizes, **settings)


def two(**settings: Any) -> Stream:
    sources = {"a": spec(60, 40, digest="a", weight=3), "b": spec(9, 8, digest="b", weight=1)}
    return Stream(sources, **{"batch_size": 10, "seed": 4, **settings})


def drawn(stream: Stream, steps: Iterable[int]) -> list[Address]:
    return [address for step in steps for address in stream.batch(step)]


def stored(stream: Stream, step: int) -> StreamState:
    return StreamState.from_json(json.loads(json.dumps(stream.state(step).to_json())))


batch_sizes = st.sampled_from([1, 2, 3, 5, 7, 8, 12])


@unhurried
@given(batch_sizes, batch_sizes, batch_sizes, st.integers(0, 40), st.integers(0, 40))
def test_a_mixture_carried_to_other_batch_sizes_draws_the_very_same_samples(
    first: int, second: int, third: int, one: int, other: int
) -> None:
    straight = drawn(two(batch_size=1), range(one * first + other * second + 3 * third))
    carried = two(batch_size=second).carry(stored(two(batch_size=first), one))
    again = two(batch_size=third).carry(stored(carried, one + other))
    assert drawn(again, range(one + other + 3)) == straight


@unhurried
@given(batch_sizes, batch_sizes, st.integers(0, 60))
def test_a_lone_source_carried_to_another_batch_size_repeats_nothing_and_drops_less_than_a_batch(
    old: int, new: int, step: int
) -> None:
    def lone(batch_size: int) -> Stream:
        return Stream({"x": spec(20, 31, 7)}, batch_size=batch_size, seed=1)

    epoch, position = lone(old).position(step)
    stream = lone(new).carry(stored(lone(old), step))
    assert stream.position(step) in ((epoch, position), (epoch + 1, 0))
    visits = Counter(address.epoch for address in drawn(stream, range(stream.steps_of(epoch + 3))))
    assert set(visits) == set(range(epoch + 3))
    for number, count in visits.items():
        assert 58 - (new if number >= epoch else old) < count <= 58
    here = [address for address in drawn(stream, range(stream.steps_of(epoch + 1))) if address.epoch == epoch]
    assert [address.position for address in here] == list(range(len(here)))
    assert len({(address.shard, address.item) for address in here}) == len(here)
    last = stream.steps_of(epoch + 3) - 1
    assert {address.epoch for address in stream.batch(last)} == {epoch + 2}
    assert {address.epoch for address in stream.batch(last + 1)} == {epoch + 3}


def test_a_carried_stream_keeps_the_batches_before_and_is_resumed_like_any_other() -> None:
    before = two(batch_size=6)
    stream = two(batch_size=4).carry(stored(before, 7))
    assert drawn(stream, range(7)) == drawn(before, range(7))
    assert two(batch_size=4).carry(stored(stream, 9)).legs == stream.legs
    assert two(batch_size=4).carry(stored(stream, 9)).batch(9) == stream.batch(9)
    assert stream.carry(stored(stream, 9)) is stream
    assert [len(stream.slots(step, 0, 2)) for step in (6, 7)] == [3, 2]


def test_an_evaluation_is_not_carried_to_another_batch_size() -> None:
    with pytest.raises(ConfigError, match="batch_size=10"):
        two(batch_size=5, drop_last=False).carry(two(drop_last=False).state(1))


def test_weights_change_at_their_step_and_no_item_is_repeated_or_lost_at_the_border() -> None:
    stream = two(changes=[WeightChange(step=20, weights={"b": 1}), WeightChange(step=30, weights={"a": 1, "b": 1})])
    assert Counter(address.source for address in drawn(stream, range(20))) == {"a": 150, "b": 50}
    assert {address.source for address in drawn(stream, range(20, 30))} == {"b"}
    assert Counter(address.source for address in drawn(stream, range(30, 40))) == {"a": 50, "b": 50}
    for name, items in (("a", 100), ("b", 17)):
        mine = [address for address in drawn(stream, range(40)) if address.source == name]
        assert [(each.epoch, each.position) for each in mine] == [divmod(number, items) for number in range(len(mine))]


def test_a_change_of_weights_keeps_its_step_when_the_batch_size_changes_before_it() -> None:
    changes = [WeightChange(step=12, weights={"b": 1})]
    stream = two(batch_size=4, changes=changes).carry(stored(two(batch_size=8, changes=changes), 10))
    assert {address.source for address in drawn(stream, range(10, 12))} == {"a", "b"}
    assert {address.source for address in drawn(stream, range(12, 15))} == {"b"}


def test_other_changes_of_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="changes of weights"):
        two().carry(two(changes=[WeightChange(step=5, weights={"a": 1})]).state(3))


@pytest.mark.parametrize(("until", "through"), [("a", {"a"}), ("b", {"b"}), ("first", {"b"}), ("all", {"a", "b"})])
def test_an_epoch_of_a_mixture_ends_when_what_it_waits_for_is_through(until: str, through: set[str]) -> None:
    stream = two(until=until)
    for epochs in (1, 2, 5):
        steps = stream.steps_of(epochs)
        counts = Counter(address.source for address in drawn(stream, range(steps)))
        shorter = Counter(address.source for address in drawn(stream, range(steps - 1)))
        due = {"a": 100 * epochs, "b": 17 * epochs}
        assert all(counts[name] >= due[name] for name in through)
        assert any(shorter[name] < due[name] for name in through)
    assert stream.steps_per_epoch == stream.steps_of(1)


def test_epochs_of_a_source_say_how_often_it_is_visited_in_one_of_the_mixture() -> None:
    stream = Stream({"a": spec(100, digest="a"), "b": spec(20, digest="b", epochs=5)}, batch_size=10, seed=0)
    visited = drawn(stream, range(stream.steps_of(1)))
    assert Counter(address.source for address in visited) == {"a": 100, "b": 100}
    assert {address.epoch for address in visited if address.source == "b"} == set(range(5))


def test_what_would_never_end_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"streams\.a has weight 0 to the end"):
        two(until="a", changes=[WeightChange(step=1, weights={"b": 1})])
    with pytest.raises(ConfigError, match="neither first, all, nor one of: a, b"):
        two(until="c")


def grouped(lanes: int, batch_size: int = 24) -> Stream:
    sources = {
        "clips": spec(50, digest="c", weight=1, group="retrieval of video"),
        "photos": spec(70, digest="p", weight=3, group="retrieval of image"),
        "sketches": spec(40, digest="s", weight=2, group="retrieval of image"),
    }
    return Stream(sources, batch_size=batch_size, seed=2, lanes=lanes)


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_micro_batches_hold_one_group_each_and_are_alike_on_all_ranks(world: int, micro_batches: int) -> None:
    stream = grouped(lanes=4)
    for step in range(12):
        shapes = set()
        for rank in range(world):
            slots = stream.slots(step, rank, world)
            parts = stream.parts(step, rank, world, micro_batches)
            assert sorted(slot for part in parts for slot in part) == list(range(len(slots)))
            held = [{stream.sources[slots[slot].source].group for slot in part} for part in parts]
            assert all(len(groups) == 1 for groups in held)
            assert max(map(len, parts)) <= len(slots) // micro_batches
            shapes.add(tuple((*groups, len(part)) for groups, part in zip(held, parts, strict=True)))
        assert len(shapes) == 1


def test_groups_that_could_not_be_alike_on_all_ranks_are_refused() -> None:
    with pytest.raises(ConfigError, match="set lanes to a multiple of 3"):
        grouped(lanes=4).slots(0, 0, 3)


def test_one_group_is_cut_in_order_into_equal_parts() -> None:
    assert two(batch_size=12).parts(3, 1, 2, 3) == ((0, 1), (2, 3), (4, 5))
