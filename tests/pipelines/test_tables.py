"""Tables as they come: Arrow has many ways to hold bytes, files get damaged, and names get used twice."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.tables import Table, open_tables
from shards.errors import InputError


def opened(path: Path) -> Table:
    (table,) = open_tables(str(path)).values()
    return table


@pytest.mark.parametrize(
    "kind",
    [
        pa.binary(),
        pa.large_binary(),
        pa.binary(3),
        pa.binary_view(),
        pa.dictionary(pa.int32(), pa.binary()),
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    ],
    ids=str,
)
def test_a_column_holds_bytes_however_arrow_writes_them(kind: pa.DataType, tmp_path: Path) -> None:
    value = (
        {"bytes": b"abc", "path": None} if pa.types.is_struct(kind) else [b"abc"] if pa.types.is_list(kind) else b"abc"
    )
    column = pa.array([value]).cast(kind) if not pa.types.is_struct(kind) else pa.array([value], kind)
    pq.write_table(pa.table({"image": column, "text": ["words"]}), tmp_path / "t.parquet")
    table = opened(tmp_path / "t.parquet")
    assert (table.bytes_in("image"), table.bytes_in("text")) == ("one", "none")
    (row,) = table.rows(["text"])
    assert table.cell(row.address, "image") == value


@pytest.mark.parametrize(
    "kind",
    [pa.binary(), pa.large_binary(), pa.struct([("bytes", pa.binary()), ("path", pa.string())])],
    ids=str,
)
def test_lists_of_bytes_are_planned_by_their_lengths_alone(kind: pa.DataType, tmp_path: Path) -> None:
    one = {"bytes": b"abc", "path": None} if pa.types.is_struct(kind) else b"abc"
    pq.write_table(
        pa.table({"images": pa.array([[one, one], [], None, [one, None]], pa.list_(kind))}), tmp_path / "t.parquet"
    )
    table = opened(tmp_path / "t.parquet")
    assert table.bytes_in("images") == "several"
    rows = list(table.rows(["images"]))
    assert [row.values["images"] for row in rows] == [[None, None], [], None, [None, None]]
    assert [table.cell(row.address, "images") for row in rows] == [[one, one], [], None, [one, None]]


def test_lists_of_other_objects_are_read_as_they_are(tmp_path: Path) -> None:
    answers = [[{"answer": "yes"}, {"answer": "no"}]]
    pq.write_table(pa.table({"answers": answers}), tmp_path / "t.parquet")
    table = opened(tmp_path / "t.parquet")
    assert table.bytes_in("answers") == "none"
    assert [row.values["answers"] for row in table.rows(["answers"])] == answers


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_a_parquet_file_that_was_damaged_stops_the_run_in_a_sentence(compression: str, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    texts = [random.Random(number).randbytes(30).hex() for number in range(4000)]
    pq.write_table(
        pa.table({"text": texts}), path, compression=compression, write_page_checksum=True, use_dictionary=False
    )
    data = path.read_bytes()
    for damaged in (data[:-9], data[: len(data) // 2], data[:900] + b"!" + data[901:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"t\.parquet is no readable Parquet file .*; download it again"):
            list(opened(path).rows(["text"]))


def test_two_columns_of_one_name_are_refused_before_one_of_them_is_lost(tmp_path: Path) -> None:
    columns = [pa.array(["a.jpg"]), pa.array(["one"]), pa.array(["two"])]
    pq.write_table(pa.table(columns, names=["file", "text", "text"]), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("file,text,text\na.jpg,one,two\n")
    for name in ("t.parquet", "t.csv"):
        with pytest.raises(InputError, match="has several columns 'text'"):
            list(opened(tmp_path / name).rows(["file", "text"]))


def test_cells_are_read_again_behind_texts_with_odd_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('text,pic\n"a\u2028b\x0bc",first\n"d\ne",second\n', newline="")
    table = opened(tmp_path / "t.csv")
    assert [table.cell(row.address, "pic") for row in table.rows(["text"])] == ["first", "second"]


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_a_column_that_comes_late_is_found_and_one_that_never_comes_is_not(name: str, tmp_path: Path) -> None:
    rows = [*({"file": "a.jpg"} for _ in range(1200)), {"file": "b.jpg", "text": "words"}, {"last": 1}]
    text = "\n".join(map(json.dumps, rows)) if name == "t.jsonl" else json.dumps(rows)
    (tmp_path / name).write_text(text)
    table = opened(tmp_path / name)
    assert table.columns() == ("file",)
    assert table.columns(["text"]) == ("file", "text")
    assert table.columns(["txt"]) == ("file", "text", "last")
