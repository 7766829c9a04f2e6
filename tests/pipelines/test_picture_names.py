"""One picture under several names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipelines.picture_names import Match, PictureNames, Spot, names_of
from shards.errors import InputError
from shards.records import Origin


def held(*files: str | None, match: Match = "auto") -> PictureNames:
    def origins() -> Iterator[tuple[Spot, Origin]]:
        for row, file in enumerate(files):
            yield Spot(shard=row % 2, row=row), Origin(dataset="d", split="s", id=f"id{row}", file=file)

    return PictureNames(origins(), match=match, dataset="held")


def find(names: PictureNames, file: str | None, *, id: str = "other", match: Match = "auto") -> int | None:
    spot = names.find(list(names_of(file=file, id=id, match=match)))
    return None if spot is None else spot.row


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("train/7.jpg", "train/7.jpg"),
        ("train/7.jpg", "7.jpg"),
        ("7.jpg", "photos/7.jpg"),
        ("COCO_train2014_000000000025.jpg", "000000000025.jpg"),
        ("val2017/000000000025.jpg", "COCO_val2014_000000000025.jpg"),
        ("000000000025.jpg", "COCO_train2014_000000000025_3.jpg"),
        ("clips/ab_1_2.avi", "ab_1_2.mp4"),
        ("a\u0308.jpg", "photos\\ä.jpg"),
        ("ab.v2_1_2.FLAC", "ab.v2_1_2.wav"),
    ],
)
def test_a_picture_is_found_under_its_other_names(stored: str, asked: str) -> None:
    assert find(held("another.jpg", stored, "000000000052.jpg"), asked) == 1


def test_pictures_that_only_look_alike_are_not_found() -> None:
    names = held("COCO_train2014_000000000025.jpg", "7.jpg")
    for asked in ("COCO_train2014_000000000026.jpg", "25.jpg", "17.jpg", "7.jpg.png"):
        assert find(names, asked) is None


def test_the_full_path_decides_between_two_pictures_of_one_base_name() -> None:
    names = held("a/7.jpg", "b/7.jpg")
    assert find(names, "b/7.jpg") == 1
    with pytest.raises(InputError, match=r"2 records of held go by '7\.jpg'"):
        find(names, "7.jpg")


def test_the_raw_id_serves_where_no_file_is_named_or_where_it_is_asked_for() -> None:
    names = held("a.jpg", "b.jpg")
    assert find(names, None, id="id1") == 1
    assert find(names, "gone.jpg", id="id1") is None
    by_id = held("a.jpg", "b.jpg", match="id")
    assert find(by_id, "a.jpg", id="id1", match="id") == 1
