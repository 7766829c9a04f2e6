"""Anybody's table: four file formats, three ways to hold a picture, lists and repeated rows of captions."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.convert import ConvertConfig, plan_units
from shards.errors import InputError

Rows = list[dict[str, Any]]


def write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_json(path: Path, rows: Rows) -> None:
    path.write_text(json.dumps(rows, indent=1))


def write_parquet(path: Path, rows: Rows) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)


WRITERS = {"t.csv": write_csv, "t.jsonl": write_jsonl, "t.json": write_json, "t.parquet": write_parquet}


@pytest.fixture
def source(tmp_path: Path) -> Any:
    def spec(name: str, rows: Rows, **keys: Any) -> dict[str, Any]:
        WRITERS[name](tmp_path / name, rows)
        columns = keys.pop("columns", {"image": "file", "caption": "text"})
        return {"kind": "table", "annotations": str(tmp_path / name), "columns": columns, **keys}

    return spec


@pytest.mark.parametrize("name", WRITERS)
def test_paths_are_relative_to_the_media_folder_and_repeated_rows_add_captions(
    convert: Any, source: Any, photos: Path, name: str
) -> None:
    rows = [{"file": "a.jpg", "text": "one"}, {"file": "b.jpg", "text": "two"}, {"file": "a.jpg", "text": "three"}]
    done = convert(source(name, rows, media=str(photos)))
    assert done.captions == {"a.jpg": ["one", "three"], "b.jpg": ["two"]}


def test_white_space_around_a_path_is_none_of_it_unless_the_file_is_called_so(
    convert: Any, source: Any, photos: Path
) -> None:
    (photos / "b.jpg").rename(photos / " b.jpg")
    rows = [{"file": " a.jpg ", "text": "one"}, {"file": " b.jpg", "text": "two"}]
    done = convert(source("t.csv", rows, media=str(photos)))
    assert done.captions == {"a.jpg": ["one"], " b.jpg": ["two"]}


@pytest.mark.parametrize("name", WRITERS)
def test_a_list_of_captions_and_an_id_column(convert: Any, source: Any, photos: Path, name: str) -> None:
    rows = [{"id": "x1", "file": "a.jpg", "text": ["one", "two"]}, {"id": "x2", "file": "b.jpg", "text": ["three"]}]
    done = convert(source(name, rows, media=str(photos), columns={"image": "file", "caption": "text", "id": "id"}))
    assert done.captions == {"x1": ["one", "two"], "x2": ["three"]}


@pytest.mark.parametrize("name", WRITERS)
def test_pictures_in_base64_are_found_out_and_read_again_by_the_worker(
    convert: Any, source: Any, picture: Any, name: str
) -> None:
    pictures = [picture(shade=shade, form=form) for shade, form in ((1, "JPEG"), (2, "PNG"), (3, "WEBP"), (4, "JPEG"))]
    rows = [{"file": base64.b64encode(data).decode(), "text": f"no. {at}"} for at, data in enumerate(pictures)]
    done = convert(source(name, rows), records_per_shard=3)
    stored = [next(iter(record.payload.values())) for record in done.dataset.records()]
    assert stored == pictures
    assert next(record.key for record in done.dataset.records()) == "table-all-t-000000001"


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: {"bytes": data, "path": None}])
def test_bytes_in_parquet_are_read_across_row_groups_and_files(
    convert: Any, tmp_path: Path, picture: Any, wrap: Any
) -> None:
    pictures = [picture(shade=20 * at) for at in range(7)]
    for number, part in enumerate((pictures[:4], pictures[4:])):
        rows = [{"file": wrap(data), "text": "words"} for data in part]
        write_parquet(tmp_path / f"train-{number}.parquet", rows)
    spec = {
        "kind": "table",
        "annotations": str(tmp_path / "train-*.parquet"),
        "columns": {"image": "file", "caption": "text"},
    }
    done = convert(spec, records_per_shard=3)
    assert [record.payload["jpg"] for record in done.dataset.records()] == pictures
    assert done.card.shards == 3


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_a_column_may_be_missing_from_the_first_rows(convert: Any, source: Any, photos: Path, name: str) -> None:
    rows = [{"file": "a.jpg", "text": "one"}, {"file": "b.jpg", "text": "two", "id": "x2"}]
    done = convert(source(name, rows, media=str(photos), columns={"image": "file", "caption": "text", "id": "id"}))
    assert done.captions == {"x2": ["two"]}
    assert done.reasons() == {f"{name} row 1": "missing_field"}


def test_a_text_whose_commas_nobody_quoted_is_refused_and_never_cut_short(
    convert: Any, source: Any, photos: Path, tmp_path: Path
) -> None:
    spec = source("t.csv", [{"file": "a.jpg", "text": "one"}], media=str(photos))
    (tmp_path / "t.csv").write_text('file,text\na.jpg,a dog, running\na.jpg,"a dog, asleep",,\n')
    done = convert(spec)
    assert done.captions == {"a.jpg": ["a dog, asleep"]}
    assert done.reasons("annotation") == {"t.csv row 1": "unsupported"}


def test_two_columns_of_one_name_are_not_chosen_between(
    convert: Any, source: Any, photos: Path, tmp_path: Path
) -> None:
    spec = source("t.csv", [{"file": "a.jpg", "text": "one"}], media=str(photos))
    (tmp_path / "t.csv").write_text("file,text,text\na.jpg,one,two\n")
    with pytest.raises(InputError, match="several columns 'text'"):
        convert(spec)


@pytest.mark.parametrize("indent", [None, 4])
def test_json_may_be_one_object_of_rows_by_name(convert: Any, photos: Path, tmp_path: Path, indent: int | None) -> None:
    rows = {"6": {"file": "a.jpg", "text": "one"}, "15": {"file": "b.jpg", "text": "two"}}
    (tmp_path / "t.json").write_text(json.dumps(rows, indent=indent))
    columns = {"image": "file", "caption": "text"}
    spec = {"kind": "table", "annotations": str(tmp_path / "t.json"), "media": str(photos), "columns": columns}
    assert convert(spec).captions == {"a.jpg": ["one"], "b.jpg": ["two"]}
    (tmp_path / "t.json").write_text(
        json.dumps({"info": {"file": "a.jpg", "text": "one"}, "rows": [rows]}, indent=indent)
    )
    with pytest.raises(InputError, match=r"member 'rows' is no JSON object|has no column"):
        convert(spec)


def test_json_lines_may_be_called_json(convert: Any, source: Any, photos: Path, tmp_path: Path) -> None:
    spec = source("t.jsonl", [{"file": "a.jpg", "text": "one"}], media=str(photos))
    (tmp_path / "t.jsonl").rename(tmp_path / "t.json")
    assert convert(spec | {"annotations": str(tmp_path / "t.json")}).captions == {"a.jpg": ["one"]}


def test_bad_rows_are_named_rejects(convert: Any, source: Any, photos: Path, picture: Any) -> None:
    rows = [
        {"id": "1", "file": "a.jpg", "text": "good"},
        {"id": "1", "file": "b.jpg", "text": "another picture under the same id"},
        {"id": "2", "file": "http://host.example/x.jpg", "text": "far"},
        {"id": "3", "file": "", "text": "nothing"},
        {"id": "", "file": "c.jpg", "text": "no id"},
        {"id": "4", "file": "lost.jpg", "text": "lost"},
        {"id": "5", "file": "d.jpg", "text": ""},
    ]
    columns = {"image": "file", "caption": "text", "id": "id"}
    done = convert(source("t.csv", rows, media=str(photos), columns=columns))
    assert done.captions == {"1": ["good"]}
    assert done.reasons() == {
        "1": "duplicate_id",
        "2": "remote_media",
        "3": "missing_field",
        "t.csv row 5": "missing_field",
        "4": "missing_media",
        "5": "no_annotations",
    }
    assert done.card.raw_annotations == 7


def test_base64_that_is_none_and_strings_that_are_no_utf8_cost_one_row(
    convert: Any, source: Any, tmp_path: Path, picture: Any
) -> None:
    good = base64.b64encode(picture()).decode()
    done = convert(source("t.jsonl", [{"file": good, "text": "ok"}, {"file": "%%%", "text": "x"}]))
    assert done.reasons() == {"t.jsonl row 2": "not_media"}
    text = _unchecked_strings([b"fine", b"caf\xe9"])
    pq.write_table(pa.table({"file": [picture(), picture()], "text": text}), tmp_path / "bad.parquet")
    spec = {
        "kind": "table",
        "annotations": str(tmp_path / "bad.parquet"),
        "columns": {"image": "file", "caption": "text"},
    }
    done = convert(spec)
    assert list(done.captions.values()) == [["fine"]]
    assert done.reasons("annotation") == {"bad.parquet row 2": "broken_utf8"}


def _unchecked_strings(values: list[bytes]) -> pa.Array:
    """An Arrow string array whose bytes nobody has checked, as careless writers leave them."""
    raw = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())


def test_a_changed_picture_inside_a_text_table_is_a_changed_unit(source: Any, picture: Any, tmp_path: Path) -> None:
    def unit_id(shade: int) -> str:
        spec = source("t.jsonl", [{"file": base64.b64encode(picture(shade=shade)).decode(), "text": "x"}])
        config = ConvertConfig(source=spec, output=str(tmp_path / "out"))
        return plan_units(config)[0].id(config.digest())

    assert unit_id(10) == unit_id(10)
    assert unit_id(10) != unit_id(180)


def test_a_misspelt_column_a_folder_and_an_unknown_ending_are_explained(
    convert: Any, source: Any, photos: Path, tmp_path: Path
) -> None:
    spec = source("t.csv", [{"file": "a.jpg", "text": "x"}], media=str(photos))
    with pytest.raises(InputError, match=r"source\.columns\.caption: t\.csv has no column 'txt': did you mean 'text'"):
        convert(spec | {"columns": {"image": "file", "caption": "txt"}})
    with pytest.raises(InputError, match=r"is a folder; name its files"):
        convert(spec | {"annotations": str(tmp_path)})
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match=r"use \.csv, \.tsv, \.jsonl or \.parquet"):
        convert(spec | {"annotations": str(tmp_path / "t.xlsx")})
    (tmp_path / "no.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(InputError, match="no readable Parquet"):
        convert(spec | {"annotations": str(tmp_path / "no.parquet")})
    (tmp_path / "bad.jsonl").write_text('{"file": "a.jpg", "text": "x"}\n{"file": \n')
    with pytest.raises(InputError, match=r"bad\.jsonl, line 2: no valid JSON"):
        convert(spec | {"annotations": str(tmp_path / "bad.jsonl")})


def test_hypotheses_come_with_their_label_or_from_a_split_that_hides_it(
    convert: Any, source: Any, photos: Path
) -> None:
    rows = [{"file": "a.jpg", "said": "It is wet.", "gold": "neutral"}]
    shown = {"image": "file", "hypothesis": "said"}
    told = convert(source("t.jsonl", rows, media=str(photos), columns={**shown, "label": "gold"}))
    assert [each.label for record in told.dataset.records() for each in record.annotations] == ["neutral"]
    hidden = convert(source("t.jsonl", rows, media=str(photos), columns=shown))
    assert [each.label for record in hidden.dataset.records() for each in record.annotations] == [None]


@pytest.mark.parametrize("form", ["bytes", "struct"])
def test_two_pictures_in_one_cell_of_a_parquet_file_are_a_statement(
    form: str, convert: Any, picture: Any, tmp_path: Path
) -> None:
    def held(data: bytes) -> Any:
        return data if form == "bytes" else {"bytes": data, "path": "x.jpg"}

    pairs = [[held(picture(shade=20 * number)), held(picture(shade=20 * number + 9))] for number in range(3)]
    rows = [
        {"images": images, "sentence": f"statement {number}", "truth": True}
        for number, images in enumerate([*pairs, pairs[0][:1], []])
    ]
    write_parquet(tmp_path / "t.parquet", rows)
    columns = {"image": "images", "statement": "sentence", "label": "truth"}
    done = convert({"kind": "table", "annotations": str(tmp_path / "t.parquet"), "columns": columns})
    records = list(done.dataset.records())
    assert [record.annotations[0].text for record in records] == [f"statement {number}" for number in range(3)]
    assert [list(record.payload.values()) for record in records] == [
        [image if form == "bytes" else image["bytes"] for image in images] for images in pairs
    ]
    assert done.reasons() == {"t.parquet row 4": "missing_media", "t.parquet row 5": "missing_field"}


def test_a_row_whose_list_of_pictures_is_empty_is_no_record_without_a_picture(
    source: Any, convert: Any, photos: Path
) -> None:
    rows = [{"file": [], "text": "one"}, {"file": ["a.jpg"], "text": "two"}]
    done = convert(source("t.jsonl", rows, media=str(photos)))
    assert done.captions == {"a.jpg": ["two"]}
    assert done.reasons() == {"t.jsonl row 1": "missing_field"}
