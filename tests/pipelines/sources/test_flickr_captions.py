"""Flickr's token file and the CSV layouts of its re-releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shards.errors import InputError


@pytest.fixture
def source(tmp_path: Path, photos: Path) -> Any:
    def spec(name: str, text: str | bytes, **keys: Any) -> dict[str, Any]:
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return {"kind": "flickr_captions", "annotations": str(tmp_path / name), "media": str(photos), **keys}

    return spec


TOKEN = "b.jpg#0\tA dog , running .\na.jpg#0\tOne cat .\na.jpg#1\tTwo cats .\n"
CSV = 'image,caption\nb.jpg,"A dog , running ."\na.jpg,One cat .\na.jpg,Two cats .\n'
BARS = "image_name| comment_number| comment\nb.jpg| 0| A dog , running .\na.jpg| 0| One cat .\na.jpg| 1| Two cats .\n"


@pytest.mark.parametrize(("name", "text"), [("x.token.txt", TOKEN), ("captions.txt", CSV), ("results.csv", BARS)])
def test_the_three_layouts_give_the_same_captions_in_the_order_of_names(
    convert: Any, source: Any, name: str, text: str
) -> None:
    done = convert(source(name, text, split="train"))
    assert done.captions == {"a.jpg": ["One cat .", "Two cats ."], "b.jpg": ["A dog , running ."]}
    assert [record.key for record in done.dataset.records()] == ["flickr_captions-train-a", "flickr_captions-train-b"]
    assert done.rejects == []


def test_a_comma_that_nobody_quoted_stays_in_its_caption(convert: Any, source: Any) -> None:
    assert convert(source("captions.txt", "image,caption\na.jpg,A dog, a cat\n")).captions == {
        "a.jpg": ["A dog, a cat"]
    }


def test_captions_that_are_a_list_in_one_cell_are_several_and_its_splits_are_told_apart(
    convert: Any, source: Any
) -> None:
    text = (
        "raw,sentids,split,filename,img_id\n"
        '"[""A dog, a cat."", ""Two"", 5]","[0, 1, 2]",train,a.jpg,0\n'
        '"[""A bird.""]","[3]",test,b.jpg,1\n'
    )
    done = convert(source("flickr_annotations_30k.csv", text, split="train"))
    assert done.captions == {"a.jpg": ["A dog, a cat.", "Two"]}
    assert done.reasons("annotation") == {"a.jpg#2": "missing_field"}
    done = convert(source("flickr_annotations_30k.csv", text))
    assert {record.origin.id: record.origin.split for record in done.dataset.records()} == {
        "a.jpg": "train",
        "b.jpg": "test",
    }
    with pytest.raises(InputError, match="no split 'val'; it has test, train"):
        convert(source("flickr_annotations_30k.csv", text, split="val"))


def test_a_comma_that_nobody_quoted_cuts_no_caption_in_front_of_another_column(convert: Any, source: Any) -> None:
    done = convert(source("x.csv", "image,caption,split\na.jpg,A dog, a cat,train\nb.jpg,A bird,train\n"))
    assert done.captions == {"b.jpg": ["A bird"]}
    assert done.reasons("annotation") == {"row 2": "unsupported"}


def test_bad_lines_are_named_rejects(convert: Any, source: Any) -> None:
    text = (
        b"a.jpg#0\tgood\n"
        b"a.jpg#0\tsame number again\n"
        b"a.jpg#1\t\n"
        b"a.jpg#2\n"
        b"a.jpg#3\tcaf\xe9\n"
        b"\n"
        b"lost.jpg#0\tno such file\n"
        b"\tno name\n"
    )
    done = convert(source("x.token", text))
    assert done.captions == {"a.jpg": ["good"]}
    assert done.reasons() == {"lost.jpg": "missing_media", "row 7": "missing_field"}
    assert done.reasons("annotation") == {
        "a.jpg#0": "duplicate_id",
        "a.jpg#1": "empty_text",
        "a.jpg#2": "missing_field",
        "a.jpg#3": "broken_utf8",
    }


def test_names_that_differ_only_in_what_a_key_forbids_keep_different_keys(
    convert: Any, source: Any, photos: Path, picture: Any
) -> None:
    for name in ("x y.jpg", "x_y.jpg", "x.y.jpg"):
        (photos / name).write_bytes(picture())
    done = convert(source("x.token", "x y.jpg#0\t1\nx_y.jpg#0\t2\nx.y.jpg#0\t3\n"))
    assert len({record.key for record in done.dataset.records()}) == 3


def test_another_table_is_refused_with_the_way_to_read_it(convert: Any, source: Any) -> None:
    with pytest.raises(InputError, match="kind=table"):
        convert(source("other.csv", "a,b,c\n1,2,3\n"))
