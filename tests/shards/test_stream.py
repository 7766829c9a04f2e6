from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from shards.errors import BudgetError, ConfigError, DamagedRecordError
from shards.manifest import merge
from shards.reader import Dataset, open_dataset
from shards.records import Record
from shards.sidecar import open_sidecar, write_sidecar
from shards.stores import open_storage
from shards.stream import DamageBudget, Item, RecordStream, Stream, source_of
from shards.writer import UnitReport

MakeRecord = Callable[..., Record]
WriteUnit = Callable[..., UnitReport]


@pytest.fixture
def dataset(tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit) -> Dataset:
    """Three shards of ten records, which have one to four captions each."""
    storage = open_storage(tmp_path / "made")
    for unit in range(3):
        numbers = range(unit * 100, unit * 100 + 10)
        write_unit(storage, unit, [make_record(number, captions=1 + number % 4) for number in numbers])
    units = [f"unit{unit}" for unit in range(3)]
    merge(storage, name="made", split="train", config={}, config_digest="c0ffee", expected_units=units)
    return open_dataset(tmp_path / "made")


def damage(dataset: Dataset, *keys: str) -> None:
    """Turn a bit in the middle of the picture of some records."""
    for shard, entry in enumerate(dataset.manifest):
        index = dataset.index(shard)
        path = Path(dataset.path) / "shards" / f"{entry.name}.tar"
        for key in set(keys) & set(index.keys):
            offset, size = next(place[1:3] for place in index.members(index.keys.index(key)) if place[0] == "jpg")
            with path.open("r+b") as tar:
                tar.seek(offset + size // 2)
                byte = tar.read(1)[0]
                tar.seek(offset + size // 2)
                tar.write(bytes([byte ^ 1]))


def train(dataset: Dataset, *, count: str = "annotations", batch_size: int = 5, **settings: object) -> RecordStream:
    stream = Stream({"made": source_of(dataset, count)}, batch_size=batch_size, seed=1)  # type: ignore[arg-type]
    return RecordStream(stream, {"made": dataset}, count=count, **settings)  # type: ignore[arg-type]


def evaluation(dataset: Dataset) -> RecordStream:
    stream = Stream({"made": source_of(dataset, "records")}, batch_size=7, seed=0, drop_last=False, shuffle=False)
    return RecordStream(stream, {"made": dataset}, count="records")


def epoch(records: RecordStream, number: int = 0) -> list[Item]:
    steps = records.stream.steps_per_epoch
    return [
        records.fetch(address)
        for step in range(number * steps, (number + 1) * steps)
        for address in records.stream.batch(step)
    ]


def test_an_epoch_of_captions_visits_each_picture_and_caption_once(dataset: Dataset) -> None:
    pairs = [(record.key, n) for record in dataset.records(payload=False) for n in range(len(record.annotations))]
    visited = [(item.record.key, item.annotation) for item in epoch(train(dataset, batch_size=len(pairs)), 2)]
    assert sorted(visited) == pairs


def test_an_epoch_of_records_visits_each_record_once(dataset: Dataset) -> None:
    items = epoch(train(dataset, count="records"))
    assert sorted(item.record.key for item in items) == [record.key for record in dataset.records(payload=False)]
    assert {item.annotation for item in items} == {None}
    assert {item.name for item in items} == {item.record.key for item in items}


def test_an_evaluation_reads_the_dataset_in_its_own_order(dataset: Dataset) -> None:
    assert [item.record for item in epoch(evaluation(dataset))] == list(dataset.records())


def test_an_items_name_tells_its_captions_apart(dataset: Dataset) -> None:
    items = epoch(train(dataset))
    assert len({item.name for item in items}) == len(items)
    assert all(item.name == f"{item.record.key}#{item.annotation}" for item in items)


def test_a_record_brings_its_sidecar_rows_joined_by_key(dataset: Dataset) -> None:
    for shard, entry in enumerate(dataset.manifest):
        keys = dataset.index(shard).keys[::-1]  # a sidecar keeps its own order
        values = pa.table({"phrases": [[f"phrase of {key}"] for key in keys]})
        write_sidecar(
            dataset.storage, column="concepts", digest8="0" * 8, shard=entry.name, keys=keys, values=values, card={}
        )
    records = train(dataset, sidecars={"made": {"concepts": open_sidecar(dataset, "concepts")}})
    for item in epoch(records):
        assert item.sidecars["concepts"]["phrases"] == [f"phrase of {item.record.key}"]


def test_a_damaged_record_is_named_counted_once_and_its_slots_are_taken_by_the_same_reserves(dataset: Dataset) -> None:
    whole = [item.name for item in epoch(train(dataset))]
    damage(dataset, "made-00103")  # four captions
    records = train(open_dataset(dataset.path))
    first, again = epoch(records), epoch(train(open_dataset(dataset.path)))
    assert [item.name for item in first] == [item.name for item in again]
    assert len(first) == len(whole)
    changed = [(old, new.name) for old, new in zip(whole, first, strict=True) if old != new.name]
    assert changed
    assert all(old.startswith("made-00103#") and not new.startswith("made-00103#") for old, new in changed)
    (met,) = records.damages
    assert (met.source, met.shard, met.key) == ("made", dataset.manifest[1].name, "made-00103")
    assert "checksum" in met.what


def test_what_a_task_cannot_use_counts_as_damaged_too(dataset: Dataset) -> None:
    def refuse_some(item: Item) -> str:
        if item.record.key.endswith("7"):
            raise DamagedRecordError(f"record {item.record.key!r} shows nothing")
        return item.record.key

    records = train(dataset)
    made = [records.make(address, refuse_some) for step in range(10) for address in records.stream.batch(step)]
    assert len(made) == 50
    assert not any(key.endswith("7") for key in made)
    assert {each.key for each in records.damages} <= {"made-00007", "made-00107", "made-00207"}
    assert records.damages


def test_a_task_that_can_use_no_record_at_all_stops_the_run_with_the_reason(dataset: Dataset) -> None:
    def refuse(item: Item) -> str:
        raise DamagedRecordError(f"record {item.record.key!r} has no picture")

    records = train(dataset, budget=DamageBudget(share=1, count=0))
    with pytest.raises(
        BudgetError, match=r"in a row cannot be used in 'made'.* because: record 'made-\d+' has no picture"
    ):
        records.make(records.stream.batch(0)[0], refuse)


def test_past_the_budget_the_run_stops_and_says_which_records(dataset: Dataset) -> None:
    damage(dataset, "made-00003", "made-00103", "made-00203")
    tolerant = train(open_dataset(dataset.path), budget=DamageBudget(share=0.1, count=0))
    epoch(tolerant)
    assert len(tolerant.damages) == 3
    with pytest.raises(BudgetError, match=r"3 records are damaged and the budget allows 2 .*made-00\d03"):
        epoch(train(open_dataset(dataset.path), budget=DamageBudget(share=0, count=2)))


def test_damage_stops_an_evaluation_rather_than_changing_what_is_scored(dataset: Dataset) -> None:
    damage(dataset, "made-00203")
    with pytest.raises(DamagedRecordError, match=r"made-00203.*nothing out"):
        epoch(evaluation(open_dataset(dataset.path)))


def test_a_stream_of_ruins_ends_in_a_sentence_and_not_in_a_search_without_end(dataset: Dataset) -> None:
    def never(item: Item) -> None:
        raise DamagedRecordError(f"record {item.record.key!r} shows nothing")

    records = train(dataset, budget=DamageBudget(share=1.0))
    with pytest.raises(BudgetError, match="in a row"):
        records.make(records.stream.batch(0)[0], never)


def test_the_order_of_another_dataset_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    stream = Stream({"made": source_of(dataset, "records")}, batch_size=5, seed=1)
    with pytest.raises(ConfigError, match=r"streams\.made"):
        RecordStream(stream, {"made": dataset}, count="annotations")
    with pytest.raises(ConfigError, match=r"streams\.made"):
        RecordStream(stream, {"other": dataset}, count="records")


def test_a_pickled_stream_reads_the_same_items(dataset: Dataset) -> None:
    records = train(dataset)
    epoch(records)
    assert Counter(item.name for item in epoch(pickle.loads(pickle.dumps(records)))) == Counter(
        item.name for item in epoch(records)
    )
