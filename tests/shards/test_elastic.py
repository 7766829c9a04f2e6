"""Elastic training: however often ranks and workers change in the middle of an epoch, the same batches come, nothing twice."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

from shards.address import Address
from shards.manifest import merge
from shards.order import SourceSpec, Stream, StreamState
from shards.reader import Dataset, open_dataset
from shards.records import Annotation, Caption, Media, Origin, Record, Reject, Text
from shards.storage import open_storage
from shards.stream import Count, Item, RecordStream, source_of
from shards.writer import ShardWriter

BLOCKS, TUPLES = (
    11,
    100,
)  # more than a thousand tuples of pure order, in blocks so that a failure is found again quickly
DATASETS = 24  # tuples that read real shards

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


def uneven(draw: random.Random) -> tuple[int, ...]:
    """Sizes of shards: many tiny, one-item and empty ones among larger ones, and more than nothing in all."""
    sizes = [draw.choice([0, 1, 1, draw.randint(2, 6), draw.randint(2, 20)]) for _ in range(draw.randint(1, 7))]
    return (*sizes, draw.randint(1, 12)) if draw.random() < 0.5 else (draw.randint(1, 12), *sizes)


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


@pytest.mark.parametrize("block", range(BLOCKS))
def test_two_changes_of_world_and_workers_in_an_epoch_repeat_nothing_lose_nothing_and_change_no_slot(
    block: int,
) -> None:
    for number in range(TUPLES):
        draw = random.Random(f"{block}:{number}")
        count = draw.choice([1, 1, 2, 3])
        weights = [draw.choice([None, draw.uniform(0.2, 3)]) for _ in range(count)]
        run = drawn(
            draw,
            {
                f"s{place}": SourceSpec(dataset_digest=f"d{place}", sizes=uneven(draw), weight=weight)
                for place, weight in enumerate(weights)
            },
        )
        batches, order = spread(run, lambda stream: stream, Stream.slots)
        assert batches == [order.batch(step) for step in run.steps], f"tuple {block}:{number}"
        if len({stretch.batch_size for stretch in run.stretches}) == 1:
            undisturbed = run.stream(run.stretches[0].batch_size)
            assert batches == [undisturbed.batch(step) for step in run.steps], f"tuple {block}:{number}"
        assert_nothing_twice_and_nothing_lost(run, batches)


def picture(number: int, draw: random.Random) -> Record:
    return media_record(number, "jpg", "image", captions(number, draw))


def clip(number: int, draw: random.Random) -> Record:
    return media_record(number, "mp4", "video", captions(number, draw))


def passage(number: int, draw: random.Random) -> Record:
    texts = tuple(Text(source=f"passage {number} part {place}") for place in range(draw.randint(1, 3)))
    return Record(
        key=f"text-{number:04d}",
        origin=Origin(dataset="made", split="train", id=str(number)),
        media=(),
        annotations=texts,
    )


def captions(number: int, draw: random.Random) -> tuple[Annotation, ...]:
    return tuple(Caption(text=f"{number} seen the {place}th time") for place in range(draw.randint(1, 4)))


def media_record(number: int, member: str, kind: str, annotations: tuple[Annotation, ...]) -> Record:
    sizes = {"frames": 30, "duration_s": 3.0, "fps": 10.0} if kind == "video" else {}
    return Record(
        key=f"{kind}-{number:04d}",
        origin=Origin(dataset="made", split="train", id=str(number)),
        media=(Media(member=member, kind=kind, width=8, height=6, **sizes),),  # type: ignore[arg-type]
        annotations=annotations,
        payload={member: random.Random(number).randbytes(40 + number)},
    )


def write(folder: Path, make: Callable[[int, random.Random], Record], draw: random.Random) -> Dataset:
    """Shards of uneven sizes; where every raw item of a unit was rejected, its shard is empty or missing."""
    storage = open_storage(folder)
    sizes = uneven(draw)
    number = 0
    for unit, size in enumerate(sizes):
        with ShardWriter(
            storage, dataset="made", split="train", unit=f"unit{unit}", unit_index=unit, config_digest="c0ffee"
        ) as writer:
            annotations = 0
            for _ in range(size):
                record = make(number, draw)
                writer.add(record)
                number += 1
                annotations += len(record.annotations)
            if not size:
                writer.reject(Reject(id=f"lost{unit}", reason="missing_media", detail="gone"))
            writer.commit(raw_items=size or 1, raw_annotations=annotations)
    units = [f"unit{unit}" for unit in range(len(sizes))]
    merge(storage, name="made", split="train", config={}, config_digest="c0ffee", expected_units=units)
    return open_dataset(folder)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Dataset]]:
    """A few sets of an image, a video and a text dataset."""
    root = tmp_path_factory.mktemp("elastic")
    kinds = {"images": picture, "clips": clip, "texts": passage}
    return [
        {name: write(root / f"{name}{n}", make, random.Random(f"{name}{n}")) for name, make in kinds.items()}
        for n in range(3)
    ]


@pytest.mark.parametrize("number", range(DATASETS))
def test_on_shards_of_pictures_clips_and_texts_every_record_or_annotation_comes_once_byte_for_byte(
    datasets: list[dict[str, Dataset]], number: int
) -> None:
    draw = random.Random(number)
    count: Count = draw.choice(["records", "annotations"])
    names = draw.sample(["images", "clips", "texts"], draw.randint(1, 3))
    chosen = {name: draw.choice(datasets)[name] for name in names}
    run = drawn(draw, {name: source_of(dataset, count) for name, dataset in chosen.items()})

    def read(records: RecordStream, step: int, rank: int, world: int) -> list[Item]:
        return [records.fetch(address) for address in records.stream.slots(step, rank, world)]

    def opened(stream: Stream) -> RecordStream:
        return RecordStream(stream, {name: open_dataset(each.path) for name, each in chosen.items()}, count=count)

    batches, order = spread(run, opened, read)
    whole = opened(order)
    assert batches == [[whole.fetch(address) for address in order.batch(step)] for step in run.steps]
    assert_nothing_twice_and_nothing_lost(run, [[item.address for item in batch] for batch in batches])
    items = [item for batch in batches for item in batch]
    assert not whole.damages
    assert all((item.annotation is None) == (count == "records") for item in items)
    seen = Counter((item.address.source, item.address.epoch, item.name) for item in items)
    assert set(seen.values()) == {1}
    stored = {(name, record.key): record for name, dataset in chosen.items() for record in dataset.records()}
    assert all(item.record == stored[item.address.source, item.record.key] for item in items)
