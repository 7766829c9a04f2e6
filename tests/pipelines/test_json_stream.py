"""A JSON file read through a window gives what `json.loads` gives, and its mistakes at the same line and column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines import json_stream
from pipelines.json_stream import TOP, stream_json
from pipelines.raw_text import read_json
from shards.errors import InputError

CONTENT = {
    "info": {"year": 2017, "text": 'quoted " and \\ and \u2028 and 漢字 and \U0001f600'},
    "images": [{"id": number, "file_name": f"{number:05}.jpg", "deep": [[[number]]]} for number in range(40)],
    "numbers": [1, -2.5e10, 1234567890123, 0.125, True, None, "x"],
    "none": [],
    "annotations": [{"id": number, "caption": "é" * number} for number in range(40)],
    "licence": None,
}


@pytest.fixture(params=[1, 7, 64, 1 << 20])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(json_stream, "_WINDOW", request.param)
    return int(request.param)


def collected(path: Path, lists: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in stream_json(str(path), key="k", lists=lists):
        if name in lists and value != []:
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
    return found


@pytest.mark.parametrize("indent", [None, 2])
def test_any_window_and_layout_gives_the_values_of_the_file(window: int, tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "x.json"
    text = json.dumps(CONTENT, indent=indent, ensure_ascii=indent is None)
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert collected(path, ("images", "annotations", "numbers", "none")) == CONTENT
    assert collected(path, ()) == CONTENT


def test_a_file_that_is_a_list_is_taken_apart_too(window: int, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(CONTENT["numbers"]))
    assert collected(path, (TOP,)) == {TOP: CONTENT["numbers"]}


def test_broken_utf8_stays_in_its_own_text(window: int, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes('{"annotations": ["é", "caf'.encode() + b'\xe9", "ok"]}')
    assert collected(path, ("annotations",)) == {"annotations": ["é", "caf\udce9", "ok"]}


@pytest.mark.parametrize("cut", [1, 2, 11, 30, 200, 1000, 2500])
def test_a_file_cut_anywhere_is_an_error_with_line_and_column(window: int, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(CONTENT, indent=1)[:-cut])
    with pytest.raises(InputError, match=r"no valid JSON at line \d+, column \d+ .*truncated"):
        collected(path, ("images", "annotations"))


@pytest.mark.parametrize(
    "text",
    ['{"images": [1, 2,, 3]}', '{"images":\n [1 2]}', '{"a": 1,\n "images": [tru]}', '{"images": [1]} x', "{'a': 1}"],
)
def test_a_mistake_is_named_where_the_whole_file_at_once_would_name_it(window: int, tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError) as whole:
        read_json(str(path), key="k")
    with pytest.raises(InputError) as streamed:
        collected(path, ("images",))
    place = str(whole.value).split("(")[0]
    assert str(streamed.value).split("(")[0] == place
