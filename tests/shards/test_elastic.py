"""Elastic training: however often ranks and workers change in the middle of an epoch, the same batches come, nothing twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.manifest import merge
from shards.order import SourceSpec, Stream
from shards.reader import Dataset, open_dataset
from shards.records import Annotation, Caption, Media, Origin, Record, Reject, Text
from shards.stores import open_storage
from shards.stream import Count, Item, RecordStream, source_of
from shards.writer import ShardWriter
from tests.elastic import assert_nothing_twice_and_nothing_lost, drawn, spread

BLOCKS, TUPLES = (
    11,
    100,
)  # more than a thousand tuples of pure order, in blocks so that a failure is found again quickly
DATASETS = 24  # tuples that read real shards


def uneven(draw: random.Random) -> tuple[int, ...]:
    """Sizes of shards: many tiny, one-item and empty ones among larger ones, and more than nothing in all."""
    sizes = [draw.choice([0, 1, 1, draw.randint(2, 6), draw.randint(2, 20)]) for _ in range(draw.randint(1, 7))]
    return (*sizes, draw.randint(1, 12)) if draw.random() < 0.5 else (draw.randint(1, 12), *sizes)


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
