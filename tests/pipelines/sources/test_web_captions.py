"""Tables from the web, in either column order, with and without a header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shards.errors import InputError


@pytest.fixture
def source(tmp_path: Path, photos: Path) -> Any:
    def spec(name: str, text: str | bytes, **keys: Any) -> dict[str, Any]:
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return {"kind": "web_captions", "annotations": str(tmp_path / name), "media": str(photos), **keys}

    return spec


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cc3m.tsv", 'a dog " barks\ta.jpg\na small cat\tb.jpg\n'),
        ("sbu.tsv", 'a.jpg\ta dog " barks\nb.jpg\ta small cat\n'),
        ("headed.tsv", 'caption\turl\na dog " barks\ta.jpg\na small cat\tb.jpg\n'),
        ("headed.csv", 'image,caption\na.jpg,"a dog "" barks"\nb.jpg,a small cat\n'),
        ("plain.csv", '"a dog "" barks",a.jpg\na small cat,b.jpg\n'),
        ("unknown.txt", 'a dog " barks\ta.jpg\na small cat\tb.jpg\n'),
        ("marked.tsv", '\ufeffa dog " barks\ta.jpg\r\na small cat\tb.jpg\r\n'),
    ],
)
def test_columns_and_header_are_found_whatever_their_order(convert: Any, source: Any, name: str, text: str) -> None:
    assert convert(source(name, text)).captions == {"a.jpg": ['a dog " barks'], "b.jpg": ["a small cat"]}


def test_configured_columns_win_and_a_wrong_one_is_named(convert: Any, source: Any) -> None:
    text = "a.jpg\tb.jpg\tthe words\n"
    assert convert(source("x.tsv", text, columns={"image": 1, "caption": 2})).captions == {"b.jpg": ["the words"]}
    with pytest.raises(InputError, match="no column 7"):
        convert(source("x.tsv", text, columns={"image": 7}))
    named = "one\ttwo\nwords here\ta.jpg\n"
    assert convert(source("y.tsv", named, columns={"image": "two", "caption": "one"})).captions == {
        "a.jpg": ["words here"]
    }


def test_rows_of_one_picture_become_one_record_and_urls_become_rejects(convert: Any, source: Any) -> None:
    text = (
        b"first words\ta.jpg\n"
        b"second words\ta.jpg\n"
        b"far away\thttp://host.example/x.jpg\n"
        b"lost one\tlost.jpg\n"
        b"\tb.jpg\n"
        b"only one cell\n"
        b"caf\xe9 au lait\ta.jpg\n"
        b"good one\tc.jpg\n"
    )
    done = convert(source("x.tsv", text))
    assert done.captions == {"a.jpg": ["first words", "second words"], "c.jpg": ["good one"]}
    assert done.reasons() == {
        "http://host.example/x.jpg": "remote_media",
        "lost.jpg": "missing_media",
        "b.jpg": "no_annotations",
        "row 6": "missing_field",
    }
    assert done.reasons("annotation") == {"row 5": "empty_text", "row 7": "broken_utf8"}
    assert done.card.raw_annotations == 8


def test_a_table_that_cannot_be_understood_asks_for_the_columns(convert: Any, source: Any) -> None:
    with pytest.raises(InputError, match=r"set source\.columns\.image"):
        convert(source("x.tsv", "one\ttwo\nthree\tfour\n"))


def test_a_comma_that_nobody_quoted_stays_in_its_caption(convert: Any, source: Any) -> None:
    text = "image,caption\na.jpg,a dog, running, fast\nb.jpg,a small cat\n"
    assert convert(source("x.csv", text)).captions == {"a.jpg": ["a dog, running, fast"], "b.jpg": ["a small cat"]}
