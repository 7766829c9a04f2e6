"""How much a small view reads: what it selects, and the indices of the shards that hold it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shards.manifest import merge
from shards.order import Stream
from shards.reader import open_dataset
from shards.records import Record
from shards.stores import open_storage
from shards.stream import RecordStream, source_of
from shards.view import ViewRule, open_view
from shards.writer import UnitReport

IO = Path("/proc/self/io")

RECORDS, SIZE = 100, 200_000  # a picture of 200 kB is a usual one


def bytes_read() -> int:
    """Bytes that this process has asked the system for, from whichever file."""
    return int(IO.read_text().split("rchar:")[1].split()[0])


@pytest.mark.skipif(not IO.is_file(), reason="the system does not count what a process reads")
def test_a_view_of_one_in_a_hundred_reads_hardly_more_than_it_selects(
    tmp_path: Path, make_record: Callable[..., Record], write_unit: Callable[..., UnitReport]
) -> None:
    storage = open_storage(tmp_path / "made")
    for unit in range(3):
        records = [make_record(unit * RECORDS + place, size=SIZE) for place in range(RECORDS)]
        digest = write_unit(storage, unit, records).config_digest
    merge(
        storage,
        name="made",
        split="train",
        config={},
        config_digest=digest,
        expected_units=[f"unit{unit}" for unit in range(3)],
    )
    rule = ViewRule(where="width >= 10 and width < 13")  # the first three of three hundred; the index says so
    open_view(open_dataset(tmp_path / "made"), "records", rule)  # worked out once
    dataset = open_dataset(tmp_path / "made")
    view = open_view(dataset, "records", rule)
    order = Stream({"x": source_of(dataset, "records", view=view)}, batch_size=3, seed=0)
    stream = RecordStream(order, {"x": dataset}, count="records", views={"x": view})
    before = bytes_read()
    items = [stream.fetch(address) for address in order.batch(0)]
    read = bytes_read() - before
    selected = sum(len(payload) for item in items for payload in item.record.payload.values())
    assert selected > 3 * SIZE
    assert selected <= read <= 1.1 * selected
