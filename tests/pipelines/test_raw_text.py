"""Annotation files as text: what is no text is said so, and what JSON allows beyond Python is a malformed file, not a crash."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.json_lines import read_json_lines
from pipelines.json_stream import stream_json
from pipelines.raw_text import id_text, read_json, read_rows
from shards.errors import InputError

READERS: dict[str, Callable[[str], object]] = {
    "whole": lambda path: read_json(path, key="k"),
    "stream": lambda path: list(stream_json(path, key="k")),
    "lines": lambda path: list(read_json_lines(path, key="k", must_have="a", what="the right file")),
    "rows": lambda path: list(read_rows(path, key="k", delimiter=",")),
}


@pytest.mark.parametrize("reader", READERS)
def test_an_address_is_no_file_of_a_disk(reader: str) -> None:
    with pytest.raises(InputError, match=r"k: s3://bucket/captions\.json is an address"):
        READERS[reader]("s3://bucket/captions.json")


@pytest.mark.parametrize("reader", ["whole", "stream", "lines"])
@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000], ids=["digits", "brackets"])
def test_what_python_cannot_take_is_one_sentence(reader: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text(f'{{"a": {value}}}')
    with pytest.raises(InputError, match="no valid JSON"):
        READERS[reader](str(path))


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_quote_that_is_never_closed_stops_the_run_and_is_found_by_its_line(end: str, tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text('file,text\na.jpg,"two\nlines"\nb.jpg,"open\nc.jpg,words\nd.jpg,more' + end, newline="")
    with pytest.raises(InputError, match="opens in the row of line 4 is never closed"):
        list(read_rows(str(path), key="k", delimiter=","))


@pytest.mark.parametrize("last", ['b.jpg,"closed"', 'b.jpg,"closed\nlater"', 'b.jpg,5" wide', "b.jpg,plain"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_every_other_last_row_is_read(last: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text("file,text\na.jpg,words\n" + last + end, newline="")
    assert [row.cells[0] for row in read_rows(str(path), key="k", delimiter=",")] == ["file", "a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [(7, "7"), (7.0, "7"), ("7", "7"), ("x/y", "x/y"), (-1, "-1"), (2**70, str(2**70))],
)
def test_whole_numbers_and_texts_are_ids(raw: object, text: str) -> None:
    assert id_text(json.loads(json.dumps(raw))) == text


@pytest.mark.parametrize("raw", [None, True, "", 7.5, math.nan, math.inf, [7], {"id": 7}])
def test_nothing_else_is_an_id(raw: object) -> None:
    assert id_text(raw) is None
