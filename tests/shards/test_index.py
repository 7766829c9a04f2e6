from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from shards.errors import DatasetError
from shards.index import (
    IndexRow,
    Member,
    decode_parquet,
    encode_index,
    encode_parquet,
    index_path,
    index_row,
    read_index,
    shard_name,
)
from shards.reader import Dataset
from shards.records import Answer, Label, Media, Origin, Question, Record
from shards.stores import open_storage


def _row(key: str, *, members: int, width: int | None = 4, annotations: int = 2) -> IndexRow:
    placed = tuple(Member(extension=f"{n}.jpg", offset=512 + n, size=n, xxh3=2**64 - 1 - n) for n in range(members))
    return IndexRow(
        key=key,
        members=placed,
        annotations=annotations,
        width=width,
        height=3,
        frames=None,
        duration_s=None,
        text_length=9,
    )


def test_an_index_comes_back_as_it_was_written(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    rows = [_row("a", members=2), _row("b", members=0, width=None), _row("c", members=3)]
    storage.create(index_path("s"), encode_index(rows))
    index = read_index(storage, "s")
    assert len(index) == 3
    assert index.keys == ["a", "b", "c"]
    assert [index.row(key) for key in "abc"] == [0, 1, 2]
    for number, row in enumerate(rows):
        assert index.members(number) == [(m.extension, m.offset, m.size, m.xxh3) for m in row.members]
    assert index.annotations.tolist() == [2, 2, 2]
    assert index.width.tolist() == [4, -1, 4]
    assert index.frames.tolist() == [-1, -1, -1]
    assert all(math.isnan(value) for value in index.duration_s)


def test_the_same_rows_make_the_same_bytes() -> None:
    rows = [_row("a", members=2)]
    assert encode_index(rows) == encode_index(list(rows))
    assert encode_index(rows) != encode_index([_row("b", members=2)])


def test_a_row_takes_its_numbers_from_the_first_media_item_and_its_longest_text() -> None:
    record = Record(
        key="k",
        origin=Origin(dataset="d", split="s", id="1"),
        media=(
            Media(member="mp4", kind="video", width=7, height=5, frames=30, duration_s=1.5),
            Media(member="wav", kind="audio"),
        ),
        annotations=(
            Question(question="who?", answers=(Answer(text="a very long answer"),)),
            Question(question="and where?"),
        ),
    )
    row = index_row(record, [])
    assert (row.width, row.height, row.frames, row.duration_s, row.annotations, row.text_length) == (
        7,
        5,
        30,
        1.5,
        2,
        10,
    )
    plain = Record(key="k", origin=record.origin, media=(), annotations=(Label(name="cat"),))
    assert (index_row(plain, []).width, index_row(plain, []).text_length) == (None, 3)


def test_positions_in_a_shard_point_at_the_bytes(make_dataset: Callable[..., Dataset], tmp_path: Path) -> None:
    dataset = make_dataset(units=1, records=3)
    data = (tmp_path / "made" / "shards" / "made-train-00000.tar").read_bytes()
    for row in range(3):
        places = {
            extension: data[offset : offset + size] for extension, offset, size, _ in dataset.index(0).members(row)
        }
        record = dataset.record(0, row)
        assert places["jpg"] == record.payload["jpg"]
        assert places["txt"].decode().startswith("picture")
        assert places["json"].startswith(b'{"schema": 1')


def test_every_annotation_is_found_in_its_record(tmp_path: Path) -> None:
    counts = (0, 3, 0, 1, 2, 0)
    rows = [_row(f"made-{number}", members=1, annotations=count) for number, count in enumerate(counts)]
    storage = open_storage(tmp_path)
    storage.create(index_path("made"), encode_index(rows))
    index = read_index(storage, "made")
    expected = [(row, number) for row, count in enumerate(counts) for number in range(count)]
    assert [index.locate(place) for place in range(sum(counts))] == expected


def test_a_missing_or_damaged_index_is_named(make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset(units=1)
    name, storage = dataset.manifest[0].name, dataset.storage
    whole = storage.read(index_path(name))
    storage.replace(index_path(name), whole[:-1])
    with pytest.raises(DatasetError, match=r"made-train-00000\.parquet does not match the checksum"):
        read_index(storage, name, xxh3=dataset.manifest[0].index_xxh3)
    with pytest.raises(DatasetError, match=r"made-train-00000\.parquet is no shard index"):
        read_index(storage, name)
    storage.remove(index_path(name))
    with pytest.raises(DatasetError, match=r"made-train-00000\.parquet is missing"):
        read_index(storage, name)


# Makes a table of several columns and row groups, reads it, and tells how many threads of the system that started.
READS = """
import os, io
import pyarrow as pa, pyarrow.parquet as pq
from shards.index import decode_parquet
sink = io.BytesIO()
pq.write_table(pa.table({str(c): list(range(1000)) for c in range(8)}), sink, row_group_size=100)
before = len(os.listdir("/proc/self/task"))
assert decode_parquet(sink.getvalue()).num_rows == 1000
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux lists them")
def test_reading_starts_no_thread_that_could_outlive_the_interpreter() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", READS], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_a_table_is_brought_to_the_schema_that_is_wanted() -> None:
    data = encode_parquet(pa.table({"b": [1, 2], "a": ["x", "y"], "more": [0, 0]}))
    wanted = pa.schema([pa.field("a", pa.string()), pa.field("b", pa.int32())])
    assert decode_parquet(data, schema=wanted) == pa.table({"a": ["x", "y"], "b": [1, 2]}, schema=wanted)
    with pytest.raises(KeyError):
        decode_parquet(data, schema=pa.schema([pa.field("lost", pa.string())]))


def test_shards_sort_by_their_number() -> None:
    assert shard_name("coco", "val", 42) == "coco-val-00042"
    assert shard_name("coco", "val", 9) < shard_name("coco", "val", 10)
