"""Tiny records and datasets, made in code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from shards.manifest import merge
from shards.reader import Dataset, open_dataset
from shards.records import Caption, Media, Origin, Record, Reject
from shards.storage import Storage
from shards.stores import open_storage
from shards.writer import ShardWriter, UnitReport
from tests.s3_server import s3

__all__ = ["make_dataset", "make_record", "s3", "write_unit"]

CONFIG = {"source": {"kind": "made_in_code"}}
CONFIG_DIGEST = "c0ffee"


def captioned(number: int, *, size: int = 700, captions: int = 2) -> Record:
    return Record(
        key=f"made-{number:05d}",
        origin=Origin(dataset="made", split="train", id=str(number), licence="CC0"),
        media=(Media(member="jpg", kind="image", width=10 + number, height=20),),
        annotations=tuple(
            Caption(id=f"{number}/{place}", text=f"picture {number} önce more {place}") for place in range(captions)
        ),
        payload={"jpg": bytes([number % 251]) * (size + number)},
    )


def write_one(storage: Storage, unit: int, records: Sequence[Record], rejects: Sequence[Reject] = ()) -> UnitReport:
    with ShardWriter(
        storage, dataset="made", split="train", unit=f"unit{unit}", unit_index=unit, config_digest=CONFIG_DIGEST
    ) as writer:
        for record in records:
            writer.add(record)
        for reject in rejects:
            writer.reject(reject)
        annotations = sum(len(record.annotations) for record in records)
        annotations += sum(reject.annotations if reject.level == "item" else 1 for reject in rejects)
        items = len(records) + sum(reject.level == "item" for reject in rejects)
        return writer.commit(raw_items=items, raw_annotations=annotations)


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """Make the captioned picture of a number."""
    return captioned


@pytest.fixture
def write_unit() -> Callable[..., UnitReport]:
    """Write and commit one unit of records and rejects, with a ledger that closes."""
    return write_one


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """Write a whole dataset: `units` shards of `records` records each; every unit but the first has one reject."""

    def make(url: str | Path = tmp_path / "made", *, units: int = 3, records: int = 4) -> Dataset:
        storage = open_storage(url)
        for unit in range(units):
            rejects = [Reject(id=f"r{unit}", reason="missing_media", detail="gone", annotations=3)] if unit else []
            write_one(storage, unit, [captioned(unit * 100 + place) for place in range(records)], rejects)
        merge(
            storage,
            name="made",
            split="train",
            config=CONFIG,
            config_digest=CONFIG_DIGEST,
            expected_units=[f"unit{unit}" for unit in range(units)],
        )
        return open_dataset(url)

    return make
