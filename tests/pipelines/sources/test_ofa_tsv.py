"""OFA's and UnIVAL's TSV files: every task, both base64 alphabets, paths, pictures that repeat, and what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from pipelines.ofa_columns import LAYOUTS, OfaTask
from pipelines.source import Target
from pipelines.sources import load_source
from shards.errors import ConfigError, InputError
from shards.reader import Dataset
from shards.records import (
    Annotation,
    Answer,
    Caption,
    Detection,
    Entailment,
    Grounding,
    ImageCode,
    Label,
    Question,
    Text,
)

Table = Callable[..., str]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Writes rows of cells, bytes or text, and gives the path."""

    def write(*rows: tuple[str | bytes, ...], name: str = "data_train.tsv") -> str:
        lines = [b"\t".join(cell if isinstance(cell, bytes) else cell.encode() for cell in row) for row in rows]
        (tmp_path / name).write_bytes(b"\n".join(lines) + b"\n")
        return str(tmp_path / name)

    return write


@pytest.fixture
def encoded(picture: Callable[..., bytes]) -> Callable[..., bytes]:
    return lambda shade=90, **size: base64.b64encode(picture(shade=shade, **size))


def spec(file: str, task: str | None, **keys: Any) -> dict[str, Any]:
    return {"kind": "ofa_tsv", "annotations": file, **({"task": task} if task else {}), **keys}


def annotations_of(dataset: Dataset) -> list[Annotation]:
    return [annotation for record in dataset.records() for annotation in record.annotations]


ROWS: dict[str, tuple[tuple[str, ...], Annotation]] = {
    "text": (("5", "some words"), Text(id="5", source="some words")),
    "image_infilling": (("5", "IMAGE", "3 0 8191"), ImageCode(id="5", codes=(3, 0, 8191))),
    "detection": (
        ("5", "IMAGE", "1,2,3.5,4,17,cup, small"),
        Detection(id="5.0", box=(1, 2, 3.5, 4), label="cup, small"),
    ),
    "caption": (("5", "77", 'a "cat', "", "IMAGE"), Caption(id="5", text='a "cat')),
    "vqa": (
        ("5", "77", "what?", "0.6|!+dog&&1.0|!+cat", "", "IMAGE"),
        Question(id="5", question="what?", answers=(Answer(text="cat"), Answer(text="dog", weight=0.6))),
    ),
    "refcoco": (("5", "77", "the cup", "1,2,3.5,4", "IMAGE"), Grounding(id="5", text="the cup", box=(1, 2, 3.5, 4))),
    "snli_ve": (
        ("5", "77", "IMAGE", "It is so.", "A premise.", "neutral"),
        Entailment(id="5", hypothesis="It is so.", premise="A premise.", label="neutral"),
    ),
    "image_gen": (("5", "3 4", "a cat"), ImageCode(id="5", codes=(3, 4), text="a cat")),
    "imagenet": (("IMAGE", "1", "tench, Tinca tinca"), Label(id="line 1", name="tench, Tinca tinca", index=0)),
    "ocr": (("5", "IMAGE", "STOP"), Caption(id="5", text="STOP")),
    "gigaword": (("an article", "a title"), Text(id="line 1", source="an article", target="a title")),
    "cola": (("0", "They is.", "0"), Text(id="line 1", source="They is.", target="unacceptable")),
    "sst2": (("fine", "1"), Text(id="line 1", source="fine", target="positive")),
    "mnli": (("a", "b", "0"), Entailment(id="line 1", premise="a", hypothesis="b", label="neutral")),
    "mrpc": (("a", "b", "1"), Entailment(id="line 1", premise="a", hypothesis="b", label="equivalent")),
    "qnli": (
        ("0", "who?", "he", "entailment"),
        Entailment(id="line 1", premise="he", hypothesis="who?", label="entailment"),
    ),
    "qqp": (
        ("1", "2", "3", "a", "b", "1"),
        Entailment(id="line 1", premise="a", hypothesis="b", label="duplicate"),
    ),
    "rte": (
        ("0", "a", "b", "not_entailment"),
        Entailment(id="line 1", premise="a", hypothesis="b", label="not_entailment"),
    ),
    "pretrain": (
        ("5", "IMAGE", "the cup", "", "1,2,3,4", "", "refcoco", "visual_grounding"),
        Grounding(id="5", text="the cup", box=(1, 2, 3, 4)),
    ),
}


@pytest.mark.parametrize("task", get_args(OfaTask))
def test_every_task_is_read_by_its_published_columns(
    task: str, table: Table, encoded: Callable[..., bytes], picture: Callable[..., bytes], convert: Any
) -> None:
    row, wanted = ROWS[task]
    done = convert(spec(table(tuple(encoded() if cell == "IMAGE" else cell for cell in row)), task))
    (record,) = done.dataset.records()
    assert record.annotations == (wanted,)
    assert dict(record.payload) == ({"jpg": picture()} if "IMAGE" in row else {})
    assert done.card.split == "train"


def test_rows_of_one_image_id_become_one_record(table: Table, encoded: Callable[..., bytes], convert: Any) -> None:
    file = table(
        ("1", "77", "one", "", encoded(10)),
        ("2", "78", "other", "", encoded(20)),
        ("3", "77", "two&&three", "", encoded(10)),
    )
    done = convert(spec(file, "caption"))
    assert done.captions == {"77": ["one", "two", "three"], "78": ["other"]}
    assert [annotation.id for annotation in annotations_of(done.dataset)] == ["1", "3.0", "3.1", "2"]


def test_questions_that_share_the_id_of_their_picture_are_told_apart(
    table: Table, encoded: Callable[..., bytes], convert: Any
) -> None:
    file = table(
        ("77", "77", "what is it?", "1.0|!+dog", "", encoded(10)),
        ("77", "77", "how many?", "1.0|!+2", "", encoded(10)),
        ("77", "77", "what is it?", "1.0|!+cat", "", encoded(10)),
        ("77", "78", "whose?", "1.0|!+mine", "", encoded(20)),
        ("79", "78", "whose?", "1.0|!+mine", "", encoded(20)),
    )
    done = convert(spec(file, "vqa"))
    found = {annotation.id: annotation.question for annotation in annotations_of(done.dataset)}  # type: ignore[union-attr]
    assert found == {"77": "what is it?", "77.1": "how many?", "79": "whose?"}
    refused = [reject.detail for reject in done.rejects]
    assert refused == [f"line {number} repeats the id of an earlier question" for number in (3, 4)]


def test_another_picture_under_a_known_image_id_is_refused(
    table: Table, encoded: Callable[..., bytes], convert: Any
) -> None:
    done = convert(spec(table(("1", "77", "one", "", encoded(10)), ("2", "77", "two", "", encoded(20))), "caption"))
    assert done.captions == {"77": ["one"]}
    assert done.reasons("annotation") == {"2": "duplicate_id"}


def test_the_mixed_file_stores_each_picture_once_per_kind_of_annotation(
    table: Table, encoded: Callable[..., bytes], convert: Any
) -> None:
    here, there = encoded(10), encoded(20)
    file = table(
        ("1", here, "a cat", "", "", "cat&&dog", "coco", "caption"),
        ("2", here, "", "what?", "0.3|!+dog&&1.0|!+cat", "", "vqa", "qa"),
        ("3", here, "again", "", "", "", "coco", "caption"),
        ("1", there, "same row id", "", "", "", "cc12m", "caption"),
        ("4", there, "x", "", "", "", "cc12m", "riddle"),
    )
    done = convert(spec(file, "pretrain"))
    assert [len(record.annotations) for record in done.dataset.records()] == [2, 1, 1]
    assert done.card.rejects == {"no_annotations": 1, "unsupported": 1}
    assert len({record.key for record in done.dataset.records()}) == 3


def test_the_url_safe_alphabet_and_missing_padding_are_understood(
    table: Table, picture: Callable[..., bytes], convert: Any
) -> None:
    data = next(data for shade in range(200) if b"-" in base64.urlsafe_b64encode(data := picture(41, 31, shade=shade)))
    done = convert(spec(table(("1", "7", "one", "", base64.urlsafe_b64encode(data).rstrip(b"="))), "caption"))
    assert [record.payload["jpg"] for record in done.dataset.records()] == [data]


def test_paths_lead_into_the_media_folder_and_not_out_of_it(table: Table, photos: Path, convert: Any) -> None:
    (photos.parent / "outside.jpg").write_bytes((photos / "a.jpg").read_bytes())
    file = table(
        ("1", "a", "one", "", "a.jpg"),
        ("2", "b", "two", "", "../outside.jpg"),
        ("3", "c", "three", "", "http://x/a.jpg"),
    )
    done = convert(spec(file, "caption", media=str(photos)), reject_share=1.0)
    assert done.captions == {"a": ["one"]}
    assert done.reasons() == {"b": "outside_media", "c": "remote_media"}


def test_clips_and_sounds_are_told_by_their_ending(table: Table, tmp_path: Path) -> None:
    wanted = {
        "a.mp4": "video",
        "b.wav": "audio",
        "c.png": "image",
        "d.MPG": "video",
        "e.aac": "audio",
        "f.gif": "image",
    }
    for name in wanted:
        (tmp_path / name).write_bytes(b"x")
    file = table(*((name, name, "text", "", name) for name in wanted))
    target = Target(dataset="d", split="s", records_per_shard=10, max_pixels=10**6)
    source, _ = load_source(spec(file, "caption"), target=target)
    kinds = {item["id"]: item["media"][0].get("kind", "image") for unit in source.units() for item in unit.items}
    assert kinds == wanted


def test_a_unit_carries_no_picture(table: Table, encoded: Callable[..., bytes]) -> None:
    image = encoded(10, width=200, height=200)
    file = table(*((str(number), str(number), "text", "", image) for number in range(5)))
    target = Target(dataset="d", split="s", records_per_shard=10, max_pixels=10**6)
    source, _ = load_source(spec(file, "caption"), target=target)
    assert all(len(json.dumps(dict(item))) < 400 for unit in source.units() for item in unit.items)


def test_given_columns_say_the_task(table: Table, encoded: Callable[..., bytes], convert: Any) -> None:
    file = table(("a cat", "x", encoded()))
    done = convert(spec(file, None, columns={"caption": 0, "image": 2}))
    assert [annotation.text for annotation in annotations_of(done.dataset) if isinstance(annotation, Caption)] == [
        "a cat"
    ]


def test_columns_can_be_moved(table: Table, encoded: Callable[..., bytes], convert: Any) -> None:
    file = table(("5", encoded(), "a cat", "3 4"))
    done = convert(spec(file, "image_gen", columns={"image": 1, "caption": 2, "codes": 3}))
    assert annotations_of(done.dataset) == [ImageCode(id="5", codes=(3, 4), text="a cat")]
    assert all("jpg" in record.payload for record in done.dataset.records())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "which task is it"),
        ({"columns": {"premise": 0, "hypothesis": 1, "label": 2}}, "mnli, mrpc"),
        ({"task": "caption", "columns": {"imagee": 2}}, "image"),
    ],
)
def test_a_task_that_is_not_clear_is_asked_for(keys: dict[str, Any], message: str, table: Table, convert: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        convert({"kind": "ofa_tsv", "annotations": table(("a", "b", "c")), **keys})


def test_a_file_of_another_task_stops_before_anything_runs(
    table: Table, encoded: Callable[..., bytes], convert: Any
) -> None:
    with pytest.raises(InputError, match="has 3 columns"):
        convert(spec(table(("5", "3 4", "a cat")), "caption"))
    with pytest.raises(InputError, match="neither base64 nor a path"):
        convert(spec(table(("5", "77", "what?", "1.0|!+cat", "", encoded())), "caption"))


def test_bad_cells_are_refused_by_name(table: Table, encoded: Callable[..., bytes], convert: Any) -> None:
    def row(id: str, text: str | bytes, box: str, image: bytes) -> tuple[str | bytes, ...]:
        return (id, f"p{id}", text, box, image)

    file = table(
        row("1", "good", "0,0,5,5", encoded(1)),
        row("2", b"\xff\xfe", "0,0,5,5", encoded(2)),
        row("3", "text", "0,0,5", encoded(3)),
        row("4", "text", "0,0,500,5", encoded(4)),
        row("5", "text", "0,0,5,5", encoded(5)[:70]),
        row("6", "text", "5,5,5,9", encoded(6)),
        row("7", " ", "0,0,5,5", encoded(7)),
        ("8", "p8", "text"),
    )
    done = convert(spec(file, "refcoco"))
    assert done.card.records == 1
    assert done.reasons("annotation") == {
        "2": "broken_utf8",
        "3": "missing_field",
        "4": "box_outside",
        "6": "empty_box",
        "7": "empty_text",
        "8": "missing_field",
    }
    assert done.reasons()["p5"] == "truncated_media"


def test_every_task_has_a_row_here() -> None:
    assert set(ROWS) == set(LAYOUTS)


def test_a_picture_without_an_image_id_keeps_its_key_in_another_file(
    table: Table, encoded: Callable[..., bytes], convert: Any
) -> None:
    first, second = ((str(number), encoded(number), "a cup") for number in (10, 20))
    one = convert(spec(table(first, second), "ocr"))
    other = convert(spec(table(second, first, name="more_train.tsv"), "ocr"))
    keys = [{record.key: dict(record.payload) for record in done.dataset.records()} for done in (one, other)]
    assert keys[0] == keys[1]
