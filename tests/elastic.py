"""Runs whose ranks, workers and batch size change on the way, drawn at random, and what must hold of the order they see."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from shards.address import Address
from shards.order import SourceSpec, Stream, StreamState
from shards.stream import RecordStream

Process = TypeVar("Process", Stream, RecordStream)
Part = TypeVar("Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of the run between two changes of the world."""

    steps: range
    batch_size: int
    world: int
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One tuple: an order, and who runs it when."""

    sources: dict[str, SourceSpec]
    seed: int
    window: int
    lanes: int
    stretches: tuple[Stretch, ...]

    def stream(self, batch_size: int) -> Stream:
        """A fresh one, as a process makes that knows nothing of the others."""
        return Stream(self.sources, batch_size=batch_size, seed=self.seed, window=self.window, lanes=self.lanes)

    @property
    def steps(self) -> range:
        return range(self.stretches[0].steps.start, self.stretches[-1].steps.stop)


def drawn(draw: random.Random, sources: dict[str, SourceSpec]) -> Run:
    """Draw sizes that fit the sources, a position, and two changes of world and workers in the middle of an epoch.

    In every fourth tuple the global batch changes its size with them.
    """
    least = min(spec.items for spec in sources.values())
    lanes = draw.choice([1, 1, 1, 2, 3]) if least >= 3 else 1
    sizes = [lanes * draw.randint(1, min(12, max(1, least // lanes))) for _ in range(3)]
    sizes = sizes if draw.random() < 0.25 else sizes[:1] * 3
    run = Run(sources=sources, seed=draw.randint(0, 2**31), window=draw.randint(1, 5), lanes=lanes, stretches=())
    epoch = run.stream(sizes[0]).steps_per_epoch
    start = draw.randint(0, 3) * epoch if len(sources) == 1 else draw.randint(0, 40)
    stop = start + (epoch if len(sources) == 1 else 2 * epoch + 2)
    changes = sorted(draw.randint(start, stop) for _ in range(2))
    stretches = [
        Stretch(
            steps=range(first, last),
            batch_size=size,
            world=draw.choice([world for world in range(1, min(size, 6) + 1) if size % world == 0]),
            workers=draw.randint(1, 3),
        )
        for first, last, size in zip([start, *changes], [*changes, stop], sizes, strict=True)
    ]
    return replace(run, stretches=tuple(stretches))


def spread(
    run: Run, begin: Callable[[Stream], Process], take: Callable[[Process, int, int, int], Sequence[Part]]
) -> tuple[list[list[Part]], Stream]:
    """Run every stretch by its own ranks and workers, each a fresh process that resumes from the stored state alone.

    Args:
        run: who runs which steps.
        begin: makes what a process has when it has resumed.
        take: makes a rank's slots of a step in such a process, given the step, the rank and the world.

    Returns:
        The global batch of each step, put together in slot order; and the order as the last process knows it.
    """
    order = run.stream(run.stretches[0].batch_size)
    batches: list[list[Part]] = []
    for stretch in run.stretches:
        stored = json.dumps(order.state(stretch.steps.start).to_json())
        parts: dict[tuple[int, int], Sequence[Part]] = {}
        for rank in range(stretch.world):
            for worker in range(stretch.workers):
                order = run.stream(stretch.batch_size).carry(StreamState.from_json(json.loads(stored)))
                process = begin(order)
                for step in stretch.steps[worker :: stretch.workers]:
                    parts[step, rank] = take(process, step, rank, stretch.world)
        for step in stretch.steps:
            batches.append([each for rank in range(stretch.world) for each in parts[step, rank]])
    return batches, order


def assert_nothing_twice_and_nothing_lost(run: Run, batches: Sequence[Sequence[Address]]) -> None:
    """Every batch is whole; positions of each source follow one another without a gap; no epoch holds an item twice."""
    sizes = [stretch.batch_size for stretch in run.stretches for _ in stretch.steps]
    assert [len(batch) for batch in batches] == sizes
    seen: defaultdict[tuple[str, int], set[tuple[int, int]]] = defaultdict(set)
    for batch in batches:
        for address in batch:
            assert (address.shard, address.item) not in seen[address.source, address.epoch]
            assert 0 <= address.item < run.sources[address.source].sizes[address.shard]
            seen[address.source, address.epoch].add((address.shard, address.item))
    if len(run.sources) == 1:
        assert_only_an_epochs_end_is_left_out(run, batches)
        return
    for name, spec in run.sources.items():
        length = spec.items - spec.items % run.lanes  # what does not divide among the lanes waits for another epoch
        turns = sorted(
            each.epoch * length + each.position for batch in batches for each in batch if each.source == name
        )
        assert not turns or turns == list(range(turns[0], turns[0] + len(turns)))


def assert_only_an_epochs_end_is_left_out(run: Run, batches: Sequence[Sequence[Address]]) -> None:
    """A lone source's batches follow one another; an epoch ends only where less than a batch is left of it.

    Where the size changes between two epochs, that is a batch of the former size.
    """
    (spec,) = run.sources.values()
    due: tuple[int, int] | None = None
    former = 0
    for batch in batches:
        positions = sorted(address.position for address in batch)
        (epoch,) = {address.epoch for address in batch}
        assert positions == list(range(positions[0], positions[0] + len(batch)))
        if due is not None and (epoch, positions[0]) != due:
            assert (epoch, positions[0]) == (due[0] + 1, 0)
            assert spec.items - due[1] < max(former, len(batch))
        due, former = (epoch, positions[-1] + 1), len(batch)
