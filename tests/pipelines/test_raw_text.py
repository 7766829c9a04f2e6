"""Annotation files as text: what is no text is said so, and what JSON allows beyond Python is a malformed file, not a crash."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.json_lines import read_json_lines
from pipelines.json_stream import stream_json
from pipelines.raw_text import cells_of, delimiter_of, id_text, read_headed_rows, read_json, read_rows
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


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_cr_inside_of_a_cell_is_a_character_and_before_the_lf_it_ends_the_line(
    delimiter: str, tmp_path: Path
) -> None:
    path = tmp_path / "captions"
    path.write_bytes(
        b"file,text\r\na.jpg,one\rtwo\r\nb.jpg,\rthree\nc.jpg,\rf\r\nd.jpg,fi\rv".replace(b",", delimiter.encode())
    )
    rows = [row.cells for row in read_rows(str(path), key="k", delimiter=delimiter)]
    assert rows == [("file", "text"), ("a.jpg", "one\rtwo"), ("b.jpg", "\rthree"), ("c.jpg", "\rf"), ("d.jpg", "fi\rv")]


@pytest.mark.parametrize("reader", ["lines", "rows"])
def test_a_file_with_the_line_ends_of_old_macs_is_said_to_have_them(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "captions"
    path.write_bytes(b'{"a": 1}\r{"a": 2}\r')
    with pytest.raises(InputError, match="line ends of old Macs"):
        READERS[reader](str(path))


@pytest.mark.parametrize("cell", ["a\x0bb", "a\x0cb", "a\u2028b", "a\x85b", "a\rb", "a\x1cb"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_the_bytes_of_a_row_give_its_cells_again_whatever_they_hold(cell: str, delimiter: str, tmp_path: Path) -> None:
    path = tmp_path / "captions"
    path.write_bytes(f"file,text,more\r\n{cell},x,{cell}\nlast,y,z".replace(",", delimiter).encode())
    data = path.read_bytes()
    for row in read_rows(str(path), key="k", delimiter=delimiter):
        assert tuple(cells_of(data[row.offset : row.offset + row.size], delimiter=delimiter)) == row.cells


def test_a_quoted_cell_over_several_lines_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_bytes(b'a,b\n"one\n\ntwo\r\n","x,\ry"\nz,\n')
    data = path.read_bytes()
    rows = list(read_rows(str(path), key="k", delimiter=","))
    assert rows[1].cells == ("one\n\ntwo\r\n", "x,\ry")
    assert [tuple(cells_of(data[row.offset : row.offset + row.size], delimiter=",")) for row in rows] == [
        row.cells for row in rows
    ]


@pytest.mark.parametrize(
    ("name", "first", "delimiter"),
    [
        ("t.csv", "a,b;c", ","),
        ("t.csv", "a;b", ";"),
        ("t.csv", "a| b", "|"),
        ("t.csv", "a\tb", "\t"),
        ("t.csv", "a", ","),
        ("t.tsv", "a,b", "\t"),
        ("t.txt", "a,b\tc", "\t"),
        ("t.txt", "a;b", ";"),
    ],
)
def test_a_delimiter_is_told_by_the_ending_and_else_by_the_first_line(
    name: str, first: str, delimiter: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(first + "\n1,2;3\t4")
    assert delimiter_of(str(tmp_path / name), key="k") == delimiter


@pytest.mark.parametrize("reader", ["whole", "stream", "lines"])
def test_a_key_with_two_values_in_one_object_stops_the_run(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text('{"a": {"caption": "one", "caption": "two"}}')
    with pytest.raises(InputError, match="the key 'caption' stands twice in one object, with two values"):
        READERS[reader](str(path))
    path.write_text('{"a": {"caption": "one", "caption": "one"}}')
    assert READERS[reader](str(path))


@pytest.mark.parametrize("reader", READERS)
def test_blank_space_before_the_content_is_no_empty_file(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text("\n" * 9000 + '{"a": 1}')
    assert READERS[reader](str(path))
    path.write_text(" \n" * 9000)
    with pytest.raises(InputError, match="is empty"):
        READERS[reader](str(path))


def test_a_table_without_a_row_is_said_to_have_none(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\n,,\n")
    with pytest.raises(InputError, match="has no rows"):
        read_headed_rows(str(tmp_path / "t.csv"), key="k", delimiter=",")
    (tmp_path / "t.csv").write_text("\n a ,b\n1,2\n")
    header, rows = read_headed_rows(str(tmp_path / "t.csv"), key="k", delimiter=",")
    assert (header, [row.cells for row in rows]) == (("a", "b"), [("1", "2")])
