"""NLVR2: two photos and a statement about them, found by the identifier at every level of the release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.errors import InputError
from shards.records import Statement


def line(identifier: Any, label: Any = "True", sentence: Any = "Both are red.", **more: Any) -> str:
    return json.dumps({"identifier": identifier, "label": label, "sentence": sentence, **more})


@pytest.fixture
def source(tmp_path: Path) -> Any:
    (tmp_path / "photos").mkdir()

    def spec(*lines: str, name: str = "dev.json", **keys: Any) -> dict[str, Any]:
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return {"kind": "nlvr2", "annotations": str(tmp_path / name), "media": str(tmp_path / "photos"), **keys}

    return spec


@pytest.fixture
def put(tmp_path: Path, picture: Any) -> Any:
    """Put both photos of a pair below the media folder; the right one is larger."""

    def putting(pair: str, below: str = ".") -> None:
        folder = tmp_path / "photos" / below
        folder.mkdir(parents=True, exist_ok=True)
        for side in (0, 1):
            (folder / f"{pair}-img{side}.png").write_bytes(picture(10 + side, 8, form="PNG"))

    return putting


def test_a_record_is_two_photos_left_then_right(convert: Any, source: Any, put: Any) -> None:
    put("dev-850-0")
    put("dev-9-1")
    done = convert(source(line("dev-850-0-1"), line("dev-9-1-0", "False", "No. ")))
    first, second = done.dataset.records()
    assert (first.key, second.key) == ("nlvr2-dev-dev-850-0", "nlvr2-dev-dev-9-1")
    assert [(media.member, media.width) for media in first.media] == [("0.png", 10), ("1.png", 11)]
    assert first.annotations == (Statement(id="dev-850-0-1", text="Both are red.", label=True),)
    assert second.annotations == (Statement(id="dev-9-1-0", text="No.", label=False),)


@pytest.mark.parametrize(
    ("fields", "below"),
    [
        ({"identifier": "dev-1-0-0"}, "dev"),
        ({"identifier": "test1-1-0-0"}, "images/test1"),
        ({"identifier": "train-1-0-0", "directory": 42}, "images/train/42"),
        ({"identifier": "train-1-0-0", "directory": "42"}, "42"),
    ],
)
def test_the_media_folder_may_be_any_level_of_the_release(
    convert: Any, source: Any, put: Any, fields: dict[str, Any], below: str
) -> None:
    pair = fields["identifier"].rpartition("-")[0]
    put(pair, below)
    (record,) = convert(source(line(**fields))).dataset.records()
    assert record.origin.file == f"{below}/{pair}-img0.png"


def test_statements_about_one_pair_are_one_record_or_records_of_their_own_on_demand(
    convert: Any, source: Any, put: Any
) -> None:
    put("dev-1-0")
    put("dev-2-0")
    lines = [line("dev-1-0-0"), line("dev-2-0-0"), line("dev-1-0-1", "False")]
    apart = convert(source(*lines, one_record_per="statement"))
    assert [len(record.annotations) for record in apart.dataset.records()] == [1, 1, 1]
    done = convert(source(*lines))
    assert {record.origin.id: [a.id for a in record.annotations] for record in done.dataset.records()} == {
        "dev-1-0": ["dev-1-0-0", "dev-1-0-1"],
        "dev-2-0": ["dev-2-0-0"],
    }


def test_a_hidden_label_is_no_label(convert: Any, source: Any, put: Any) -> None:
    put("test2-1-0")
    fields = json.dumps({"identifier": "test2-1-0-0", "sentence": "Who knows."})
    done = convert(source(fields, name="test2.json"))
    (record,) = done.dataset.records()
    assert (record.key, record.annotations[0].label) == ("nlvr2-test2-test2-1-0", None)


@pytest.mark.parametrize("per", ["statement", "pair"])
def test_every_flaw_is_refused_by_name_and_the_ledger_closes(convert: Any, source: Any, put: Any, per: str) -> None:
    put("dev-1-0")
    lines = [
        line("dev-1-0-0"),
        line("dev-1-0-1", "maybe"),
        line("dev-1-0-2", sentence=""),
        line("dev-1-0-0", "False"),
        line("dev-7-0-0"),
        line("../../dev-1-0-0"),
        line(None),
    ]
    done = convert(source(*lines, one_record_per=per))
    (record,) = done.dataset.records()
    assert [(a.id, a.label) for a in record.annotations] == [("dev-1-0-0", True)]
    refused, lost = done.reasons("annotation"), done.reasons()
    assert (refused["dev-1-0-1"], refused["dev-1-0-2"]) == ("unsupported", "empty_text")
    assert (refused if per == "pair" else lost)["dev-1-0-0"] == "duplicate_id"
    assert lost["dev-7-0" if per == "pair" else "dev-7-0-0"] == "missing_media"
    assert (lost["line 6"], lost["line 7"]) == ("missing_field", "missing_field")
    assert done.card.raw_annotations == len(lines)


def test_a_missing_right_photo_is_a_missing_pair(convert: Any, source: Any, put: Any, tmp_path: Path) -> None:
    put("dev-1-0")
    put("dev-2-0")
    (tmp_path / "photos" / "dev-2-0-img1.png").unlink()
    assert convert(source(line("dev-1-0-0"), line("dev-2-0-0"))).reasons() == {"dev-2-0": "missing_media"}


def test_another_file_is_one_sentence(convert: Any, source: Any, put: Any) -> None:
    put("dev-1-0")
    with pytest.raises(InputError, match=r"line 1 has no `identifier` .*give NLVR2's"):
        convert(source(json.dumps({"images": []})))
