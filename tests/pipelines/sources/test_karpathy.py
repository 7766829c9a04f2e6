"""Karpathy's splits: one JSON for pictures, sentences and splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.errors import ConfigError, InputError


def entry(name: str, split: str, *sentences: Any, **more: Any) -> dict[str, Any]:
    return {"filename": name, "split": split, "sentences": list(sentences), **more}


def raw(id: int, text: str) -> dict[str, Any]:
    return {"sentid": id, "raw": text, "tokens": text.lower().split()}


@pytest.fixture
def source(tmp_path: Path, photos: Path) -> Any:
    def spec(images: Any, **keys: Any) -> dict[str, Any]:
        (tmp_path / "dataset_x.json").write_text(json.dumps({"dataset": "x", "images": images}))
        return {"kind": "karpathy", "annotations": str(tmp_path / "dataset_x.json"), "media": str(photos), **keys}

    return spec


IMAGES = [
    entry("a.jpg", "train", raw(0, "A."), raw(1, "AA.")),
    entry("b.jpg", "val", raw(2, "B.")),
    entry("c.jpg", "restval", raw(3, "C.")),
    entry("d.jpg", "test", raw(4, "D.")),
]


def test_split_selects_one_several_or_all(convert: Any, source: Any) -> None:
    assert list(convert(source(IMAGES, split="train")).captions) == ["a.jpg"]
    joined = convert(source(IMAGES, split="train+restval"))
    assert list(joined.captions) == ["a.jpg", "c.jpg"]
    assert [(r.key, r.origin.split) for r in joined.dataset.records()] == [
        ("karpathy-train_restval-a", "train"),
        ("karpathy-train_restval-c", "restval"),
    ]
    assert len(convert(source(IMAGES)).captions) == 4


def test_an_unknown_split_names_those_there_are(convert: Any, source: Any) -> None:
    with pytest.raises(InputError, match=r"no split 'dev'; it has restval \(1\), test \(1\), train \(1\), val \(1\)"):
        convert(source(IMAGES, split="dev"))
    with pytest.raises(ConfigError, match="write train, val, test"):
        convert(source(IMAGES, split="train,val"))


@pytest.mark.parametrize("nested", [True, False])
def test_coco_pictures_are_found_in_their_subfolders_and_in_one_folder_alike(
    convert: Any, source: Any, photos: Path, nested: bool
) -> None:
    if nested:
        (photos / "val2014").mkdir()
        (photos / "a.jpg").rename(photos / "val2014" / "a.jpg")
    done = convert(source([entry("a.jpg", "val", raw(0, "A."), filepath="val2014", cocoid=42)]))
    assert done.captions == {"42": ["A."]}
    assert next(done.dataset.records()).key == "karpathy-all-000000000042"


def test_coco_pictures_are_found_under_their_names_of_2017(convert: Any, source: Any, photos: Path) -> None:
    (photos / "train2017").mkdir()
    (photos / "a.jpg").rename(photos / "train2017" / "000000000042.jpg")
    named = entry("COCO_val2014_000000000042.jpg", "restval", raw(0, "A."), filepath="val2014", cocoid=42)
    (record,) = convert(source([named])).dataset.records()
    assert (record.origin.id, record.origin.file) == ("42", "train2017/000000000042.jpg")


def test_bad_sentences_and_images_are_named_rejects_and_tokens_stand_in_for_a_missing_raw(
    convert: Any, source: Any
) -> None:
    images = [
        entry("a.jpg", "train", {"sentid": 0, "tokens": ["a", "dog"]}, {"sentid": 0, "raw": "again"}, {"sentid": 1}, 5),
        entry("a.jpg", "train", raw(7, "same picture again")),
        {"split": "train", "sentences": [raw(8, "no file")]},
    ]
    done = convert(source(images, split="train"))
    assert done.captions == {"a.jpg": ["a dog"]}
    assert done.reasons() == {"a.jpg": "duplicate_id", "images[2]": "missing_field"}
    assert done.reasons("annotation") == {
        "0": "duplicate_id",
        "1": "missing_field",
        "a.jpg sentences[3]": "missing_field",
    }


def test_the_official_coco_file_is_refused_with_the_kind_that_reads_it(convert: Any, source: Any) -> None:
    with pytest.raises(InputError, match="kind=coco_captions"):
        convert(source([{"id": 1, "file_name": "a.jpg"}]))
