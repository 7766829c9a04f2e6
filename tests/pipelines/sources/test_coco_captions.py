"""COCO's official layout, whole and broken in every way that one item can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.errors import InputError


def write(path: Path, images: Any, annotations: Any, **more: Any) -> str:
    path.write_text(json.dumps({"images": images, "annotations": annotations, **more}))
    return str(path)


def image(id: int, name: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "file_name": name, **more}


def caption(id: int, image_id: int, text: Any) -> dict[str, Any]:
    return {"id": id, "image_id": image_id, "caption": text}


@pytest.fixture
def source(tmp_path: Path, photos: Path) -> Any:
    def spec(images: Any, annotations: Any, **keys: Any) -> dict[str, Any]:
        file = write(tmp_path / "captions_val2017.json", images, annotations, **keys.pop("content", {}))
        return {"kind": "coco_captions", "annotations": file, "media": str(photos), **keys}

    return spec


def test_a_picture_becomes_one_record_with_all_its_captions_and_its_licence(convert: Any, source: Any) -> None:
    done = convert(
        source(
            [image(7, "a.jpg", license=4)],
            [caption(1, 7, "A dog."), caption(2, 7, " A cat. ")],
            content={"licenses": [{"id": 4, "url": "http://creativecommons.org/licenses/by/2.0/", "name": "x"}]},
        )
    )
    (record,) = done.dataset.records()
    assert record.key == "coco_captions-val-000000000007"
    assert [(a.id, a.text) for a in record.annotations] == [("1", "A dog."), ("2", "A cat.")]
    assert (record.origin.split, record.origin.file, record.origin.licence) == ("val", "a.jpg", "CC BY 2.0")
    assert (record.media[0].width, record.media[0].height) == (12, 8)


def test_records_are_in_the_order_of_image_ids_whatever_the_order_of_the_file(convert: Any, source: Any) -> None:
    ids = [30, 4, 200, 1]
    done = convert(
        source([image(i, f"{n}.jpg") for i, n in zip(ids, "abcd", strict=True)], [caption(i, i, "x") for i in ids]),
        records_per_shard=3,
    )
    assert list(done.captions) == ["1", "4", "30", "200"]
    assert done.card.shards == 2


def test_every_kind_of_bad_item_is_a_named_reject_and_the_ledger_closes(
    convert: Any, source: Any, photos: Path, picture: Any
) -> None:
    (photos / "truncated.jpg").write_bytes(picture(200, 200)[:-300])
    (photos / "page.jpg").write_bytes(b"<html>404</html>")
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "bomb.png").write_bytes(picture(300, 300, form="PNG"))
    images = [
        image(1, "a.jpg"),
        image(2, "lost.jpg"),
        image(3, "truncated.jpg"),
        image(4, "page.jpg"),
        image(5, "empty.jpg"),
        image(6, "bomb.png"),
        image(7, "b.jpg"),
        image(8, "c.jpg"),
        image(1, "d.jpg"),
        {"id": 10},
        {"file_name": "d.jpg"},
    ]
    texts = [
        caption(100, 1, "Good."),
        *(caption(100 + i, i, "Fine.") for i in range(2, 7)),
        caption(107, 7, "  "),
        caption(100, 1, "Again the id of another."),
        caption(109, 1, "broken \udc80 half"),
        {"id": 110, "image_id": 1},
        caption(111, 99, "Nobody lists this image."),
    ]
    done = convert(source(images, texts), max_pixels=200 * 300)
    assert done.captions == {"1": ["Good."]}
    items = [(reject.id, reject.reason) for reject in done.rejects if reject.level == "item"]
    assert sorted(items) == sorted(
        [
            ("2", "missing_media"),
            ("3", "truncated_media"),
            ("4", "not_media"),
            ("5", "zero_size"),
            ("6", "decompression_bomb"),
            ("7", "no_annotations"),
            ("8", "no_annotations"),
            ("1", "duplicate_id"),
            ("10", "missing_field"),
            ("images[10]", "missing_field"),
            ("99", "missing_media"),
        ]
    )
    assert done.reasons("annotation") == {
        "107": "empty_text",
        "100": "duplicate_id",
        "109": "broken_utf8",
        "110": "missing_field",
    }
    assert done.card.raw_items == 12
    assert done.card.raw_annotations == len(texts)


def test_a_picture_is_stored_under_what_it_is_and_not_under_what_its_name_says(
    convert: Any, source: Any, photos: Path, picture: Any
) -> None:
    (photos / "lying.jpg").write_bytes(picture(form="PNG"))
    (record,) = convert(source([image(1, "lying.jpg")], [caption(1, 1, "x")])).dataset.records()
    assert record.media[0].member == "png"
    assert record.payload["png"] == (photos / "lying.jpg").read_bytes()


def test_broken_bytes_in_the_file_cost_one_caption_and_not_the_run(convert: Any, source: Any) -> None:
    spec = source([image(1, "a.jpg")], [caption(1, 1, "caf@"), caption(2, 1, "fine")])
    path = Path(spec["annotations"])
    path.write_bytes(path.read_bytes().replace(b"caf@", b"caf\xe9"))
    done = convert(spec)
    assert done.captions == {"1": ["fine"]}
    assert done.reasons("annotation") == {"1": "broken_utf8"}


def test_ids_may_be_texts_or_whole_floats_and_what_is_none_is_named(convert: Any, source: Any) -> None:
    images = [image(i, f"{n}.jpg") for i, n in zip(["x/1", 7.0, "12", None, 1.5], "abcda", strict=True)]  # type: ignore[arg-type]
    ids: list[Any] = ["x/1", 7, 12.0, None, 1.5]
    done = convert(source(images, [caption(at, id, f"no. {at}") for at, id in enumerate(ids)]))
    assert done.captions == {"x/1": ["no. 0"], "7": ["no. 1"], "12": ["no. 2"]}
    named = {f"{rows}[{at}]": "missing_field" for rows in ("images", "annotations") for at in (3, 4)}
    assert done.reasons() == named


def test_a_list_of_licences_that_is_none_costs_nothing_but_the_licence(convert: Any, source: Any) -> None:
    for licences in ("CC BY", [1, None, {"name": "x"}], {"4": "CC BY"}):
        spec = source([image(7, "a.jpg", license=4)], [caption(1, 7, "x")], content={"licenses": licences})
        (record,) = convert(spec).dataset.records()
        assert record.origin.licence is None


def test_limit_takes_the_first_images_by_id(convert: Any, source: Any) -> None:
    spec = source([image(i, f"{n}.jpg") for i, n in enumerate("dcba")], [caption(i, i, "x") for i in range(4)], limit=2)
    assert list(convert(spec).captions) == ["0", "1"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("{", "no valid JSON at line 1"),
        ("[]", "no list `images`"),
        ('{"images": []}', "`images`"),
        ('{"images": [{"id": 1}]}', "no list `annotations`"),
        ('{"images": [{"id": 1}], "annotations": []}', "is empty"),
        ('{"images": [{"id": 1}], "annotations": [{"bbox": []}]}', "not instances_"),
    ],
)
def test_a_wrong_annotation_file_is_one_sentence_and_nothing_is_written(
    convert: Any, photos: Path, tmp_path: Path, content: str, says: str
) -> None:
    (tmp_path / "captions.json").write_text(content)
    spec = {"kind": "coco_captions", "annotations": str(tmp_path / "captions.json"), "media": str(photos)}
    with pytest.raises(InputError, match=says):
        convert(spec, output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_missing_annotation_file_and_a_wrong_media_folder_are_said_before_anything_is_written(
    convert: Any, source: Any, tmp_path: Path
) -> None:
    spec = source([image(1, "a.jpg")], [caption(1, 1, "x")])
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "z.jpg").write_bytes(b"z")
    for change, says in (
        ({"annotations": str(tmp_path / "no.json")}, "no.json does not exist"),
        ({"annotations": str(tmp_path)}, "is a folder"),
        ({"media": str(tmp_path / "no")}, "does not exist"),
        ({"media": str(empty)}, "is empty"),
        ({"media": str(tmp_path / "other")}, "none of 1 media files"),
    ):
        with pytest.raises(InputError, match=says):
            convert(spec | change, output=str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("listed", "lies"),
    [
        ("COCO_val2014_000000000042.jpg", "val2014/COCO_val2014_000000000042.jpg"),
        ("COCO_val2014_000000000042.jpg", "train2017/000000000042.jpg"),
        ("000000000042.jpg", "val2014/COCO_val2014_000000000042.jpg"),
    ],
)
def test_a_picture_is_found_in_the_folders_and_under_the_names_of_either_release(
    convert: Any, source: Any, photos: Path, listed: str, lies: str
) -> None:
    (photos / lies).parent.mkdir()
    (photos / "a.jpg").rename(photos / lies)
    (record,) = convert(source([image(42, listed)], [caption(1, 42, "A.")])).dataset.records()
    assert (record.origin.file, record.key) == (lies, "coco_captions-val-000000000042")
