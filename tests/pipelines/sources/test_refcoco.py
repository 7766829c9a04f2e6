"""REFER's expressions: pickle and instances joined, splits selected, pictures found under all their names."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from shards.errors import ConfigError, InputError

NAME = "COCO_train2014_000000000{:03d}.jpg"


def ref(id: int, image_id: int, *texts: Any, split: str = "train", ann_id: Any = None) -> dict[str, Any]:
    """One reference; its expressions have the ids 10 * id, 10 * id + 1, …"""
    return {
        "ref_id": id,
        "ann_id": 500 + id if ann_id is None else ann_id,
        "image_id": image_id,
        "split": split,
        "category_id": 1,
        "file_name": NAME.format(image_id).replace(".jpg", f"_{id}.jpg"),
        "sent_ids": [10 * id + place for place in range(len(texts))],
        "sentences": [
            {"sent_id": 10 * id + place, "sent": text, "raw": f"RAW {text}", "tokens": str(text).split()}
            for place, text in enumerate(texts)
        ],
    }


def instance(id: int, image_id: int, *box: float) -> dict[str, Any]:
    return {"id": 500 + id, "image_id": image_id, "bbox": list(box or (1, 2, 3, 4)), "category_id": 1}


def image(id: int) -> dict[str, Any]:
    return {"id": id, "file_name": NAME.format(id), "width": 12, "height": 8}


@pytest.fixture
def media(tmp_path: Path, picture: Any) -> Path:
    """A folder with the pictures 1, 2 and 3 of 2014."""
    folder = tmp_path / "train2014"
    folder.mkdir()
    for id in (1, 2, 3):
        (folder / NAME.format(id)).write_bytes(picture(shade=20 * id))
    return folder


@pytest.fixture
def source(tmp_path: Path, media: Path) -> Any:
    def spec(refs: Any, instances: Any, images: Any = None, *, protocol: int = 2, **keys: Any) -> dict[str, Any]:
        references, boxes = tmp_path / "refs(unc).p", tmp_path / "instances.json"
        references.write_bytes(refs if isinstance(refs, bytes) else pickle.dumps(refs, protocol))
        content = {"images": images or [image(1), image(2), image(3)], "annotations": instances}
        boxes.write_text(json.dumps({**content, "categories": [{"id": 1, "name": "person"}]}))
        return {
            "kind": "refcoco",
            "annotations": str(references),
            "instances": str(boxes),
            "media": str(media),
            **keys,
        }

    return spec


@pytest.mark.parametrize("protocol", [0, 2])
def test_a_picture_becomes_one_record_with_the_expressions_of_all_its_objects(
    convert: Any, source: Any, protocol: int
) -> None:
    refs = [ref(1, 2, "the lady", "blue shirt"), ref(2, 1, "a man"), ref(3, 2, "the dog")]
    boxes = [instance(1, 2, 1, 2, 3, 4), instance(2, 1), instance(3, 2, 0, 0, 12, 8)]
    done = convert(source(refs, boxes, protocol=protocol, split="train"))
    first, second = done.dataset.records()
    assert (first.key, second.key) == ("refcoco-train-000000000001", "refcoco-train-000000000002")
    assert [(a.id, a.text, a.box) for a in second.annotations] == [
        ("10", "the lady", (1, 2, 4, 6)),
        ("11", "blue shirt", (1, 2, 4, 6)),
        ("30", "the dog", (0, 0, 12, 8)),
    ]
    assert second.origin.file == NAME.format(2)


def test_split_takes_the_references_of_that_split_even_from_a_picture_of_several(convert: Any, source: Any) -> None:
    refs = [
        ref(1, 1, "one", split="testA"),
        ref(2, 1, "two", split="testB"),
        ref(3, 2, "three", split="train"),
    ]
    boxes = [instance(1, 1), instance(2, 1), instance(3, 2)]

    def texts(**keys: Any) -> dict[str, tuple[list[str], str]]:
        records = convert(source(refs, boxes, **keys)).dataset.records()
        return {r.origin.id: ([a.text for a in r.annotations], r.origin.split) for r in records}

    assert texts(split="testA") == {"1": (["one"], "testA")}
    assert texts(split="testA+testB") == {"1": (["one", "two"], "testA+testB")}
    assert texts() == {"1": (["one", "two"], "testA+testB"), "2": (["three"], "train")}
    with pytest.raises(InputError, match=r"no split 'val'; it has testA \(1\), testB \(1\), train \(1\)"):
        texts(split="val")
    with pytest.raises(ConfigError, match="is no split"):
        texts(split="testA,testB")


@pytest.mark.parametrize("place", ["COCO_train2014_000000000005.jpg", "000000000005.jpg", "train2017/000000000005.jpg"])
def test_the_object_in_the_file_name_is_dropped_and_either_release_of_the_picture_found(
    convert: Any, source: Any, media: Path, picture: Any, place: str
) -> None:
    (media / place).parent.mkdir(exist_ok=True)
    (media / place).write_bytes(picture())
    for images in ([image(5)], [{"id": 4}]):  # the second: only the references name the file
        done = convert(source([ref(16, 5, "a cat")], [instance(16, 5)], images))
        assert [record.origin.file for record in done.dataset.records()] == [place]


def test_what_cannot_be_an_expression_is_refused_by_its_id_and_the_ledger_closes(convert: Any, source: Any) -> None:
    refs = [
        ref(1, 1, "good", " "),
        ref(2, 1, "no such object", ann_id=9999),
        ref(3, 1, "object of another picture"),
        ref(4, 1, "no area"),
        ref(5, 1, "outside"),
        {**ref(6, 1), "sentences": None},
        ref(7, 3, "lost", ann_id="x"),
        {**ref(8, 2, "no picture"), "image_id": None},
        ref(1, 1, "again"),
    ]
    boxes = [instance(1, 1), instance(3, 2), instance(4, 1, 1, 1, 0, 5), instance(5, 1, 3, 3, 90, 1), instance(8, 2)]
    done = convert(source(refs, boxes))
    (record,) = done.dataset.records()
    assert [annotation.text for annotation in record.annotations] == ["good"]
    assert done.reasons("annotation") == {
        "11": "empty_text",
        "20": "missing_field",
        "30": "box_outside",
        "40": "empty_box",
        "50": "box_outside",
        "refs[5]": "missing_field",
        "70": "missing_field",
        "80": "box_outside",
        "10": "duplicate_id",
    }
    assert done.reasons() == {"3": "no_annotations", "refs[7]": "missing_field"}
    assert done.card.raw_items == 3


def test_a_pickle_that_would_run_code_is_one_sentence_and_runs_nothing(
    convert: Any, source: Any, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    refs = b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR."
    with pytest.raises(InputError, match="nothing of it was run"):
        convert(source(refs, [instance(1, 1)]), output=str(tmp_path / "out"))
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [[], {}, [1], [{"sent": "x"}], "refs"])
def test_a_pickle_of_something_else_is_one_sentence(convert: Any, source: Any, content: Any) -> None:
    with pytest.raises(InputError, match=r"give REFER's refs\(unc\)\.p"):
        convert(source(content, [instance(1, 1)]))


def test_captions_in_the_place_of_the_instances_are_one_sentence(convert: Any, source: Any) -> None:
    with pytest.raises(InputError, match=r"source\.instances: no annotation of .* has a `bbox`"):
        convert(source([ref(1, 1, "a man")], [{"id": 1, "caption": "A man."}]))
