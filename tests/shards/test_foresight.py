from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import pytest

from shards.address import Address
from shards.foresight import Foresight
from shards.order import SourceSpec, Stream
from shards.stream import RecordStream


class Announced:
    """Stands for the records of a stream, and notes what is announced."""

    def __init__(self, ahead: int) -> None:
        self.stream = Stream({"made": SourceSpec(dataset_digest="d", sizes=(40, 60, 20))}, batch_size=6, seed=3)
        self.ahead, self.calls = ahead, 0
        self.items: list[tuple[int, int, int]] = []

    def expect(self, addresses: Iterable[Address]) -> None:
        self.calls += 1
        self.items += [(each.epoch, each.shard, each.item) for each in addresses]

    def of_steps(self, steps: Iterable[int], rank: int = 0, world: int = 1) -> list[tuple[int, int, int]]:
        slots = [each for step in steps for each in self.stream.slots(step, rank, world)]
        return [(each.epoch, each.shard, each.item) for each in slots]


def foresight(records: Announced, **settings: Any) -> Foresight:
    return Foresight(records=cast(RecordStream, records), **{"rank": 0, "world": 1, **settings})


@pytest.mark.parametrize(("rank", "world", "stride"), [(0, 1, 1), (1, 3, 1), (0, 2, 4)])
@pytest.mark.parametrize("ahead", [1, 2, 8])
def test_every_step_is_announced_once_before_it_is_made_and_none_after_the_last(
    rank: int, world: int, stride: int, ahead: int
) -> None:
    records = Announced(ahead)
    coming = foresight(records, rank=rank, world=world, stop=90)
    steps = range(2, 90, stride)
    for step in steps:
        coming.before(step, stride=stride)
        assert set(records.of_steps([step], rank, world)) <= set(records.items)
        furthest = records.of_steps(range(2, min(90, step + (ahead + 1) * stride), stride), rank, world)
        assert len(records.items) <= len(furthest)
    assert records.items == records.of_steps(steps, rank, world)


def test_steps_are_announced_several_at_once() -> None:
    records = Announced(8)
    coming = foresight(records)
    for step in range(40):
        coming.before(step)
    assert records.calls <= 1 + 40 // 4


def test_after_a_jump_what_follows_is_announced_afresh() -> None:
    records = Announced(4)
    coming = foresight(records)
    coming.before(0)
    records.items.clear()
    coming.before(50)
    assert records.items == records.of_steps(range(50, 55))
    records.items.clear()
    coming.before(0)
    assert records.items == records.of_steps(range(5))


def test_nothing_is_announced_to_data_of_this_machine() -> None:
    records = Announced(0)
    foresight(records).before(0)
    assert records.calls == 0
