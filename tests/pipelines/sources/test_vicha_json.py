"""ViCHA's lists: every task, the authors' own paths, and concepts that training reads as a column."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.side_columns import write_side_columns
from shards.errors import DatasetError, InputError
from shards.records import Answer, Caption, Entailment, Question, Statement
from shards.sidecar import open_sidecar

Write = Callable[..., dict[str, Any]]


@pytest.fixture
def listed(tmp_path: Path, photos: Path) -> Write:
    """Writes a list and gives the source's config; pictures lie in `photos`."""

    def write(*rows: dict[str, Any], name: str = "list_train.json", **keys: Any) -> dict[str, Any]:
        (tmp_path / name).write_text(json.dumps(rows))
        return {"kind": "vicha_json", "annotations": str(tmp_path / name), "media": str(photos), **keys}

    return write


def test_the_objects_of_a_picture_become_one_record_whoever_s_path_it_has(listed: Write, convert: Any) -> None:
    done = convert(
        listed(
            {"image": "/data/user/data/a.jpg", "caption": "one"},
            {"image": "b.jpg", "caption": ["two", "three"]},
            {"image": "a.jpg", "caption": "four", "image_id": 7},
        )
    )
    assert done.captions == {"a.jpg": ["one", "four"], "b.jpg": ["two", "three"]}
    assert done.card.split == "train"


def test_another_number_of_the_authors_folders_can_be_dropped(listed: Write, convert: Any) -> None:
    done = convert(listed({"image": "/home/a.jpg", "caption": "one"}, drop_parts=2))
    assert done.captions == {"a.jpg": ["one"]}


def test_a_path_cannot_lead_out_of_the_media_folder(listed: Write, photos: Path, convert: Any) -> None:
    (photos.parent / "out.jpg").write_bytes((photos / "a.jpg").read_bytes())
    done = convert(
        listed(
            {"image": "../out.jpg", "caption": "one"},
            {"image": "/a/b/c/../out.jpg", "caption": "x"},
            {"image": "a.jpg", "caption": "y"},
        ),
        reject_share=1.0,
    )
    assert done.reasons() == {"../out.jpg": "outside_media"}


def test_questions_weigh_shares_and_half_for_visual_genome(listed: Write, photos: Path, convert: Any) -> None:
    (photos / "vg").mkdir()
    (photos / "vg" / "c.jpg").write_bytes((photos / "c.jpg").read_bytes())
    done = convert(
        listed(
            {
                "image": "a.jpg",
                "question": "what?",
                "question_id": 1,
                "answer": ["x"] * 6 + ["y"] * 4,
                "dataset": "vqa",
            },
            {"image": "c.jpg", "question": "who?", "question_id": 2, "answer": "me", "dataset": "vg"},
            {"image": "a.jpg", "question": "where?", "question_id": 3, "dataset": "vqa"},
            {"image": "a.jpg", "question": "again?", "question_id": 1, "dataset": "vqa"},
            folders={"vg": "vg"},
        )
    )
    asked = {record.origin.id: record.annotations for record in done.dataset.records()}
    assert asked == {
        "a.jpg": (
            Question(id="1", question="what?", answers=(Answer(text="x", weight=0.6), Answer(text="y", weight=0.4))),
            Question(id="3", question="where?"),
        ),
        "vg/c.jpg": (Question(id="2", question="who?", answers=(Answer(text="me", weight=0.5),)),),
    }
    assert done.reasons("annotation") == {"1": "duplicate_id"}


def test_entailment_names_pictures_without_their_ending(listed: Write, convert: Any) -> None:
    done = convert(listed({"image": "a", "sentence": "Nobody.", "label": "contradiction"}))
    (record,) = done.dataset.records()
    assert record.annotations == (Entailment(hypothesis="Nobody.", label="contradiction"),)


def test_statements_are_about_two_pictures(listed: Write, convert: Any) -> None:
    both = {"images": ["a.jpg", "b.jpg"]}
    done = convert(
        listed(
            {**both, "sentence": "Two dogs.", "label": "True"},
            {**both, "sentence": "No dogs.", "label": "False"},
            {**both, "sentence": "Dogs.", "label": "perhaps"},
            {"images": ["b.jpg", "a.jpg"], "sentence": "Dogs?"},
        )
    )
    first, second = done.dataset.records()
    assert first.annotations == (Statement(text="Two dogs.", label=True), Statement(text="No dogs.", label=False))
    assert sorted(first.payload) == ["0.jpg", "1.jpg"]
    assert second.annotations == (Statement(text="Dogs?", label=None),)
    assert done.reasons("annotation") == {"[2]": "unsupported"}


def test_expressions_are_kept_with_the_id_of_their_reference(listed: Write, convert: Any) -> None:
    done = convert(listed({"image": "a.jpg", "text": "the left one", "ref_id": 12}))
    (record,) = done.dataset.records()
    assert record.annotations == (Caption(id="12", text="the left one"),)


def test_concepts_become_a_column_of_every_record(listed: Write, convert: Any) -> None:
    done = convert(
        listed(
            {"image": "b.jpg", "caption": "one", "kwords": ["dog", " red car "]},
            {"image": "a.jpg", "caption": "two"},
            {"image": "b.jpg", "caption": "three", "kwords": ["dog", "red car"]},
            {"image": "c.jpg", "caption": "four", "kwords": ["tree", "dog"]},
        ),
        records_per_shard=2,
    )
    columns = write_side_columns(done.config)
    assert len(columns) == 1
    column = open_sidecar(done.dataset, "concepts")
    assert column.is_complete
    rows = {
        record.origin.id: column.row(done.dataset.locate(record.key)[0], record.key)
        for record in done.dataset.records()
    }
    assert {id: row["phrases"] for id, row in rows.items()} == {
        "a.jpg": [],
        "b.jpg": ["dog", "red car"],
        "c.jpg": ["tree", "dog"],
    }
    assert all(len(row["scores"]) == len(row["phrases"]) for row in rows.values())


def test_the_column_has_the_types_of_the_one_that_the_concepts_verb_makes(listed: Write, convert: Any) -> None:
    import numpy as np

    from concepts.annotate import concept_table
    from concepts.select import Selection

    done = convert(listed({"image": "a.jpg", "caption": "two", "kwords": ["dog"]}))
    write_side_columns(done.config)
    ours = open_sidecar(done.dataset, "concepts").table(0)
    theirs = concept_table(Selection(indices=np.array([[0]]), scores=np.array([[0.5]], np.float32)), ["dog"])
    assert {name: ours.schema.field(name).type for name in theirs.column_names} == {
        name: theirs.schema.field(name).type for name in theirs.column_names
    }


def test_a_pair_has_the_concepts_of_both_pictures(listed: Write, convert: Any) -> None:
    row = {
        "images": ["a.jpg", "b.jpg"],
        "sentence": "Dogs.",
        "label": "True",
        "kwords1": ["dog"],
        "kwords2": ["cat", "dog"],
    }
    done = convert(listed(row))
    write_side_columns(done.config)
    (record,) = done.dataset.records()
    found = open_sidecar(done.dataset, "concepts").row(0, record.key)
    assert (found["phrases"], found["second_phrases"]) == (["dog"], ["cat", "dog"])


def test_the_column_is_written_once_and_never_silently_stale(listed: Write, convert: Any) -> None:
    row = {"image": "a.jpg", "caption": "two"}
    done = convert(listed({**row, "kwords": ["dog"]}))
    assert write_side_columns(done.config) == write_side_columns(done.config)
    listed({**row, "kwords": ["cat"]})
    with pytest.raises(DatasetError, match="other concepts"):
        write_side_columns(done.config)


def test_a_list_without_concepts_and_another_source_write_no_column(
    listed: Write, tmp_path: Path, convert: Any
) -> None:
    assert write_side_columns(convert(listed({"image": "a.jpg", "caption": "two"})).config) == ()
    (tmp_path / "a.txt").write_text("text\n")
    assert write_side_columns(convert({"kind": "text_lines", "annotations": str(tmp_path / "a.txt")}).config) == ()


@pytest.mark.parametrize("rows", [{"images": []}, [], ["cat"], [{"name": "a"}]])
def test_a_file_that_is_no_such_list_is_told_apart(rows: Any, tmp_path: Path, photos: Path, convert: Any) -> None:
    (tmp_path / "x.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match="no list of objects"):
        convert({"kind": "vicha_json", "annotations": str(tmp_path / "x.json"), "media": str(photos)})
