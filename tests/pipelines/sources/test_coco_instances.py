"""COCO's objects: boxes and categories by picture, and a name for everything that cannot be one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.errors import InputError

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
SIZE = {"width": 12, "height": 8}  # of the pictures in `photos`


def thing(id: int, image_id: int, *box: float, category_id: int = 18, **more: Any) -> dict[str, Any]:
    return {"id": id, "image_id": image_id, "bbox": list(box), "category_id": category_id, "iscrowd": 0, **more}


@pytest.fixture
def source(tmp_path: Path, photos: Path) -> Any:
    def spec(images: Any, annotations: Any, *, content: Any = None, **keys: Any) -> dict[str, Any]:
        file = tmp_path / "instances_val2017.json"
        lists = {"images": images, "annotations": annotations, "categories": CATEGORIES, **(content or {})}
        file.write_text(json.dumps(lists))
        return {"kind": "coco_instances", "annotations": str(file), "media": str(photos), **keys}

    return spec


def test_a_picture_becomes_one_record_with_all_its_objects(convert: Any, source: Any) -> None:
    done = convert(
        source(
            [{"id": 7, "file_name": "a.jpg", "license": 2, **SIZE}],
            [thing(5, 7, 1, 2, 3, 4), thing(6, 7, 0.25, 0, 11.5, 8, category_id=1)],
            content={"licenses": [{"id": 2, "url": "http://creativecommons.org/licenses/by-sa/2.0/", "name": "x"}]},
        )
    )
    (record,) = done.dataset.records()
    assert (record.key, record.origin.licence) == ("coco_instances-val-000000000007", "CC BY-SA 2.0")
    assert [(a.id, a.label, a.box) for a in record.annotations] == [
        ("5", "dog", (1, 2, 4, 6)),
        ("6", "person", (0.25, 0, 11.75, 8)),
    ]


def test_ids_may_be_texts(convert: Any, source: Any) -> None:
    objects = [{"id": "o1", "image_id": "p/1", "category_id": "c", "bbox": [1, 2, 3, 4]}]
    categories = {"categories": [{"id": "c", "name": "dog"}]}
    (record,) = convert(source([{"id": "p/1", "file_name": "a.jpg"}], objects, content=categories)).dataset.records()
    assert (record.origin.id, record.annotations[0].id, record.annotations[0].label) == ("p/1", "o1", "dog")


def test_crowds_are_refused_by_name_and_taken_on_demand(convert: Any, source: Any) -> None:
    images = [{"id": 1, "file_name": "a.jpg", **SIZE}]
    objects = [thing(1, 1, 0, 0, 4, 4), thing(2, 1, 0, 0, 12, 8, iscrowd=1)]
    assert convert(source(images, objects)).reasons("annotation") == {"2": "filtered"}
    (record,) = convert(source(images, objects, crowds=True)).dataset.records()
    assert [annotation.id for annotation in record.annotations] == ["1", "2"]


def test_every_object_that_is_none_is_refused_by_its_id_and_the_ledger_closes(convert: Any, source: Any) -> None:
    objects = [
        thing(1, 1, 0, 0, 4, 4),
        thing(2, 1, 5, 5, 0, 2),
        thing(3, 1, 5, 5, -2, 2),
        thing(4, 1, 5, 5, 20, 2),
        thing(5, 1, -9, 0, 4, 4),
        thing(6, 1, 0, 0, 4, 4, category_id=99),
        thing(7, 1, 0, 0, float("nan"), 4),
        thing(8, 1, 0, 0, 4),
        thing(1, 1, 0, 0, 4, 4),
        thing(9, 77, 0, 0, 4, 4),
        thing(10, 2, 0, 0, 4, 4),
    ]
    images = [
        {"id": 1, "file_name": "a.jpg", **SIZE},
        {"id": 2, "file_name": "b.jpg", "width": 8, "height": 12},
        {"id": 3, "file_name": "c.jpg", **SIZE},
        {"id": 1, "file_name": "d.jpg", **SIZE},
        {"file_name": "d.jpg"},
        {"id": 4},
    ]
    done = convert(source(images, objects))
    (record,) = done.dataset.records()
    assert [annotation.id for annotation in record.annotations] == ["1"]
    assert done.reasons("annotation") == {
        "2": "empty_box",
        "3": "empty_box",
        "4": "box_outside",
        "5": "box_outside",
        "6": "missing_field",
        "7": "not_finite",
        "8": "missing_field",
        "1": "duplicate_id",
    }
    assert done.reasons() == {
        "2": "size_mismatch",
        "3": "no_annotations",
        "1": "duplicate_id",
        "images[4]": "missing_field",
        "4": "missing_field",
        "77": "missing_media",
    }
    assert (done.card.raw_items, done.card.raw_annotations) == (7, len(objects))


def test_boxes_that_stick_out_can_be_cut_and_boxes_of_a_smaller_copy_scaled(convert: Any, source: Any) -> None:
    images = [{"id": 1, "file_name": "a.jpg", "width": 24, "height": 16}]
    done = convert(source(images, [thing(1, 1, 4, 4, 40, 8)], clip_boxes=True, rescale_boxes=True))
    (record,) = done.dataset.records()
    assert record.annotations[0].box == (2, 2, 12, 6)


def test_the_pictures_of_2014_are_found_under_their_names_of_2017(
    convert: Any, source: Any, photos: Path, picture: Any
) -> None:
    (photos / "train2017").mkdir()
    (photos / "train2017" / "000000000009.jpg").write_bytes(picture())
    done = convert(source([{"id": 9, "file_name": "COCO_val2014_000000000009.jpg", **SIZE}], [thing(1, 9, 0, 0, 4, 4)]))
    (record,) = done.dataset.records()
    assert record.origin.file == "train2017/000000000009.jpg"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            {"annotations": [{"id": 1, "image_id": 1, "caption": "A dog."}]},
            "no annotation .* has a `bbox`; give instances_",
        ),
        ({"annotations": []}, "no list `annotations`"),
        ({"images": {}}, "no list `images`"),
        ({"categories": [1]}, "no list `categories`"),
    ],
)
def test_another_file_is_one_sentence(convert: Any, source: Any, content: Any, says: str) -> None:
    spec = source([{"id": 1, "file_name": "a.jpg"}], [thing(1, 1, 0, 0, 4, 4)], content=content)
    with pytest.raises(InputError, match=says):
        convert(spec)
