"""Visual Genome's objects: every name of every object on its box, in the size that the box was drawn on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.errors import InputError


def thing(id: Any, *names: Any, x: Any = 1, y: Any = 2, w: Any = 3, h: Any = 4) -> dict[str, Any]:
    return {"object_id": id, "names": list(names), "x": x, "y": y, "w": w, "h": h, "synsets": []}


@pytest.fixture
def source(tmp_path: Path, picture: Any) -> Any:
    """Pictures 1 and 2 lie in the two folders of the release, both 12x8."""
    for folder, id in (("VG_100K_2", 1), ("VG_100K", 2)):
        (tmp_path / "vg" / folder).mkdir(parents=True)
        (tmp_path / "vg" / folder / f"{id}.jpg").write_bytes(picture(shade=40 * id))
    (tmp_path / "image_data.json").write_text(
        json.dumps(
            [
                {"image_id": 1, "width": 12, "height": 8, "url": "https://host/rak/VG_100K_2/1.jpg"},
                {"image_id": 2, "width": 24, "height": 16, "url": "https://host/rak/VG_100K/2.jpg"},
            ]
        )
    )

    def spec(pictures: Any, **keys: Any) -> dict[str, Any]:
        (tmp_path / "objects.json").write_text(json.dumps(pictures))
        places = {"image_data": str(tmp_path / "image_data.json"), "media": str(tmp_path / "vg")}
        return {"kind": "vg_objects", "annotations": str(tmp_path / "objects.json"), **places, **keys}

    return spec


def test_an_object_is_a_detection_for_each_of_its_names(convert: Any, source: Any) -> None:
    done = convert(source([{"image_id": 1, "objects": [thing(5, "man", "person"), thing(6, "dog ")]}]))
    (record,) = done.dataset.records()
    assert (record.key, record.origin.file) == ("vg_objects-all-1", "VG_100K_2/1.jpg")
    assert [(a.id, a.label, a.box) for a in record.annotations] == [
        ("5", "man", (1, 2, 4, 6)),
        ("5-1", "person", (1, 2, 4, 6)),
        ("6", "dog", (1, 2, 4, 6)),
    ]


def test_a_picture_that_was_made_smaller_is_refused_unless_its_boxes_may_be_scaled(convert: Any, source: Any) -> None:
    pictures = [{"image_id": 1, "objects": [thing(1, "a")]}, {"image_id": 2, "objects": [thing(2, "b", w=21)]}]
    assert convert(source(pictures)).reasons() == {"2": "size_mismatch"}
    _, second = convert(source(pictures, rescale_boxes=True)).dataset.records()
    assert second.annotations[0].box == (0.5, 1, 11, 3)


def test_without_image_data_sizes_are_taken_on_trust(convert: Any, source: Any) -> None:
    done = convert(source([{"image_id": 2, "objects": [thing(2, "b")]}], image_data=None))
    assert [record.origin.file for record in done.dataset.records()] == ["VG_100K/2.jpg"]


def test_what_cannot_be_an_object_is_refused_by_its_id_and_the_ledger_closes(convert: Any, source: Any) -> None:
    objects = [
        thing(1, "good", " ", None),
        thing(2),
        thing(3, "flat", h=0),
        thing(4, "nowhere", x=None),
        thing(5, "far", x=300),
        thing(1, "again"),
        "no object",
        {"names": ["nameless"], "x": 0, "y": 0, "w": 2, "h": 2},
    ]
    pictures = [
        {"image_id": 1, "objects": objects},
        {"image_id": 1, "objects": []},
        {"image_id": 3, "objects": [thing(30, "x")]},
        {"objects": [thing(40, "x")]},
    ]
    done = convert(source(pictures))
    (record,) = done.dataset.records()
    assert [(a.id, a.label) for a in record.annotations] == [("1", "good"), ("[0].objects[7]", "nameless")]
    assert done.reasons("annotation") == {
        "1-1": "empty_text",
        "1-2": "missing_field",
        "2": "missing_field",
        "3": "empty_box",
        "4": "missing_field",
        "5": "box_outside",
        "1": "duplicate_id",
        "[0].objects[6]": "missing_field",
    }
    assert done.reasons() == {"1": "duplicate_id", "3": "missing_field", "[3]": "missing_field"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"annotations": "image_data.json"}, "give Visual Genome's objects.json"),
        ({"image_data": "objects.json"}, "give Visual Genome's image_data.json"),
    ],
)
def test_files_in_each_others_places_are_one_sentence(
    convert: Any, source: Any, tmp_path: Path, change: dict[str, str], says: str
) -> None:
    spec = source([{"image_id": 1, "objects": [thing(1, "a")]}])
    with pytest.raises(InputError, match=says):
        convert(spec | {name: str(tmp_path / file) for name, file in change.items()})
