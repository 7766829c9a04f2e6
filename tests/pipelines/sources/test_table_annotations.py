"""A table of anything: every kind of annotation and media by naming columns, and one sentence where they make no sense."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.convert import ConvertConfig, plan_units
from shards.errors import ConfigError
from shards.records import Answer, Detection, Entailment, Grounding, Label, Question, Statement, Text

Rows = list[dict[str, Any]]
FORMATS = ("csv", "tsv", "jsonl", "parquet")


def written(path: Path, rows: Rows) -> Path:
    """Write rows in the format that the file's ending names; lists become JSON where cells are text."""
    flat = [{k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()} for row in rows]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".tsv":
        lines = [list(rows[0]), *([str(cell) for cell in row.values()] for row in flat)]
        path.write_text("".join("\t".join(line) + "\n" for line in lines))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(flat)
    return path


@pytest.fixture(params=FORMATS)
def made(request: pytest.FixtureRequest, convert: Any, tmp_path: Path, photos: Path) -> Any:
    """Convert rows with a mapping of columns; annotations by raw id."""

    def run(rows: Rows, columns: dict[str, Any], **keys: Any) -> Any:
        path = written(tmp_path / f"t.{request.param}", rows)
        keys = {"media": str(photos)} | keys
        done = convert({"kind": "table", "annotations": str(path), "columns": columns, **keys})
        done.found = {record.origin.id: list(record.annotations) for record in done.dataset.records()}
        return done

    return run


def test_captions_may_lie_in_several_columns(made: Any) -> None:
    rows = [{"f": "a.jpg", "c1": "one", "c2": "two"}, {"f": "b.jpg", "c1": "three", "c2": ""}]
    done = made(rows, {"image": "f", "caption": ["c1", "c2"]})
    assert done.captions == {"a.jpg": ["one", "two"], "b.jpg": ["three"]}
    assert list(done.reasons("annotation").values()) == ["empty_text"]


def test_questions_of_one_picture_with_an_answer_a_list_and_alternatives(made: Any) -> None:
    rows = [
        {"f": "a.jpg", "q": "What?", "a": "cat", "n": "q1"},
        {"f": "a.jpg", "q": "Where?", "a": "here|there|here|here", "n": "q2"},
    ]
    done = made(rows, {"image": "f", "question": "q", "answer": "a", "annotation_id": "n"})
    assert done.found == {
        "a.jpg": [
            Question(id="q1", question="What?", answers=(Answer(text="cat"),)),
            Question(
                id="q2",
                question="Where?",
                answers=(Answer(text="here", weight=0.75), Answer(text="there", weight=0.25)),
            ),
        ]
    }


def test_answers_as_lists_weigh_their_share_or_what_a_column_says(made: Any) -> None:
    rows: Rows = [{"f": "a.jpg", "q": "What?", "a": ["cat", "dog"], "w": [0.3, 1]}]
    answers = (Answer(text="dog", weight=1.0), Answer(text="cat", weight=0.3))
    with_weights = made(rows, {"image": "f", "question": "q", "answer": "a", "weight": "w"})
    assert with_weights.found["a.jpg"] == [Question(question="What?", answers=answers)]
    without = made(rows, {"image": "f", "question": "q", "answer": "a"})
    assert [answer.weight for answer in without.found["a.jpg"][0].answers] == [0.5, 0.5]
    test_split = made(rows, {"image": "f", "question": "q"})
    assert test_split.found["a.jpg"] == [Question(question="What?")]


def test_weights_that_do_not_fit_cost_their_question_alone(made: Any) -> None:
    rows = [
        {"f": "a.jpg", "q": "1?", "a": "x|y", "w": "1"},
        {"f": "a.jpg", "q": "2?", "a": "x|y", "w": "1|nan"},
        {"f": "a.jpg", "q": "3?", "a": "x|x", "w": "1|2"},
        {"f": "a.jpg", "q": "4?", "a": "x", "w": "much"},
        {"f": "a.jpg", "q": "5?", "a": "x", "w": "2"},
    ]
    done = made(rows, {"image": "f", "question": "q", "answer": "a", "weight": "w"})
    assert [question.question for question in done.found["a.jpg"]] == ["5?"]
    assert list(done.reasons("annotation").values()) == ["missing_field", "not_finite", "duplicate_id", "missing_field"]


def test_boxes_come_as_one_column_or_four_as_corners_or_sizes(made: Any) -> None:
    one: Rows = [{"f": "a.jpg", "t": "a thing", "b": [1, 2, 3.5, 6]}]
    assert made(one, {"image": "f", "text": "t", "box": "b"}).found == {
        "a.jpg": [Grounding(text="a thing", box=(1.0, 2.0, 3.5, 6.0))]
    }
    four: Rows = [
        {"f": "a.jpg", "l": "dog", "x": 1, "y": 2, "w": 3, "h": 4},
        {"f": "a.jpg", "l": "cat", "x": 0, "y": 0, "w": 0, "h": 4},
    ]
    done = made(four, {"image": "f", "label": "l", "box": ["x", "y", "w", "h"]}, box_as="xywh")
    assert done.found == {"a.jpg": [Detection(label="dog", box=(1.0, 2.0, 4.0, 6.0))]}
    assert list(done.reasons("annotation").values()) == ["empty_box"]


def test_a_box_outside_its_picture_is_refused_or_clipped(made: Any) -> None:
    rows = [{"f": "a.jpg", "l": "x", "b": "2,2,50,6"}, {"f": "a.jpg", "l": "y", "b": "1 1 4 4"}]
    columns = {"image": "f", "label": "l", "box": "b"}
    assert [found.label for found in made(rows, columns).found["a.jpg"]] == ["y"]
    assert [found.box for found in made(rows, columns, clip_boxes=True).found["a.jpg"]] == [(2, 2, 12, 6), (1, 1, 4, 4)]


def test_verdicts_on_hypotheses_with_and_without_a_premise(made: Any) -> None:
    rows = [{"f": "a.jpg", "h": "A cat.", "p": "An animal.", "l": "entailment"}]
    assert made(rows, {"image": "f", "hypothesis": "h", "premise": "p", "label": "l"}).found == {
        "a.jpg": [Entailment(hypothesis="A cat.", premise="An animal.", label="entailment")]
    }
    assert made(rows, {"image": "f", "hypothesis": "h", "label": "l"}).found["a.jpg"][0].premise is None


def test_a_statement_is_about_two_pictures_in_two_columns_or_in_a_list(made: Any) -> None:
    rows: Rows = [
        {"l": "a.jpg", "r": "b.jpg", "both": ["a.jpg", "b.jpg"], "s": "They differ.", "v": "True"},
        {"l": "a.jpg", "r": "b.jpg", "both": ["a.jpg", "b.jpg"], "s": "They agree.", "v": "0"},
        {"l": "c.jpg", "r": "d.jpg", "both": ["c.jpg", "d.jpg"], "s": "Who knows?", "v": ""},
        {"l": "c.jpg", "r": "d.jpg", "both": ["c.jpg", "d.jpg"], "s": "Odd.", "v": "perhaps"},
    ]
    expected = {
        "a.jpg|b.jpg": [Statement(text="They differ.", label=True), Statement(text="They agree.", label=False)],
        "c.jpg|d.jpg": [Statement(text="Who knows?")],
    }
    for columns in ({"image": "l", "image2": "r"}, {"image": "both"}):
        done = made(rows, {**columns, "statement": "s", "label": "v"})
        assert done.found == expected
        assert [media.member for media in next(iter(done.dataset.records())).media] == ["0.jpg", "1.jpg"]
        assert list(done.reasons("annotation").values()) == ["unsupported"]


def test_names_of_whole_items_and_texts_without_media(made: Any) -> None:
    labels = made([{"f": "a.jpg", "l": "7"}, {"f": "b.jpg", "l": "dog"}], {"image": "f", "label": "l"})
    assert labels.found == {"a.jpg": [Label(name="7", index=7)], "b.jpg": [Label(name="dog")]}
    rows = [{"s": "long text", "t": "short"}, {"s": "long text", "t": "brief"}]
    texts = made(rows, {"source": "s", "target": "t"})
    assert list(texts.found.values()) == [
        [Text(source="long text", target="short")],
        [Text(source="long text", target="brief")],
    ]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"image": "f"}, "no annotation is named; give the columns of one of: caption, question"),
        ({"image": "f", "caption": "c", "question": "q"}, r"caption \+ question is no kind of annotation"),
        ({"image": "f", "text": "t"}, r"text is no kind .* text \+ box"),
        ({"image": "f", "answer": "a"}, r"question \[\+ answer\]"),
        ({"image": "f", "video": "v", "caption": "c"}, r"image \+ video is no media item"),
        ({"audio": "f", "label": "l", "box": "b"}, "a box lies in a picture"),
    ],
)
def test_a_combination_that_makes_no_sense_names_those_that_do(
    tmp_path: Path, columns: dict[str, str], says: str
) -> None:
    path = written(tmp_path / "t.csv", [{"f": "a.jpg"}])
    source = {"kind": "table", "annotations": str(path), "columns": columns}
    with pytest.raises(ConfigError, match=says):
        plan_units(ConvertConfig.model_validate({"source": source, "output": str(tmp_path / "o")}))


def test_sounds_are_stored_as_found(convert: Any, tmp_path: Path) -> None:
    import wave

    pytest.importorskip("av")
    for name in ("a.wav", "b.wav"):
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(bytes(1600) + name.encode() * 100)
    path = written(
        tmp_path / "t.csv", [{"f": "a.wav", "c": "a hum"}, {"f": "b.wav", "c": "a buzz"}, {"f": "a.wav", "c": "low"}]
    )
    done = convert({"kind": "table", "annotations": str(path), "columns": {"audio": "f", "caption": "c"}})
    assert done.captions == {"a.wav": ["a hum", "low"], "b.wav": ["a buzz"]}
    assert [record.payload["wav"] for record in done.dataset.records()] == [
        (tmp_path / name).read_bytes() for name in ("a.wav", "b.wav")
    ]
