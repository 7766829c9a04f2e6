from __future__ import annotations

import json
from pathlib import Path

import pytest

from concepts.captions import caption_files, read_captions
from shards.errors import InputError

TWO = ['a dog, "running"', "two cats"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("coco.json", json.dumps({"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": text} for text in TWO]})),
        ("karpathy.json", json.dumps({"images": [{"sentences": [{"raw": text, "tokens": []} for text in TWO]}]})),
        ("lists.json", json.dumps([{"image": "a.jpg", "caption": TWO}])),
        ("strings.json", json.dumps([{"image": "a.jpg", "caption": text} for text in TWO])),
        ("lines.jsonl", "\n".join(json.dumps({"caption": text}) for text in TWO)),
        ("table.csv", 'image,caption\nx.jpg,"a dog, ""running"""\ny.jpg,two cats\n'),
        ("wide.csv", 'file_name,caption_1,caption_2\nx.jpg,"a dog, ""running""",two cats\n'),
        ("bars.csv", 'image_name| comment_number| comment\nx.jpg| 0| "a dog, ""running"""\nx.jpg| 1| two cats\n'),
        ("table.tsv", 'url\tcaption\nu\ta dog, "running"\nv\ttwo cats\n'),
        ("web.tsv", 'a dog, "running"\thttp://x.org/1.jpg\ntwo cats\thttps://x.org/b?c=2\n'),
        ("flipped.tsv", 'images/1.jpg\ta dog, "running"\nimages/2.jpg\ttwo cats\n'),
        ("flickr.token", 'x.jpg#0\ta dog, "running"\nx.jpg#1\ttwo cats\n'),
        ("named.txt", 'clip_1_20 a dog, "running"\nclip_21_40 two cats\n'),
        ("plain.txt", '\ufeffa dog, "running"\n\n  two   cats \r\n'),
    ],
)  # fmt: skip
def test_captions_are_found_in_every_published_layout(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_captions(tmp_path / name) == TWO


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xd8\xff\xe0", "not UTF-8"),
        (b"a\0b", "no caption file"),
        (b"x" * 6000, "no caption file"),
        (b"", "no caption found"),
        (b'{"annotations": [{"bbox": []}]}', "no caption found"),
        (b'{"annotations": ', "broken JSON"),
    ],
)
def test_what_holds_no_captions_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_captions(path)
    assert str(path) in str(caught.value)


def test_a_folder_gives_its_caption_files_in_order_without_its_readme(tmp_path: Path) -> None:
    for name in ("b/two.csv", "a/one.token", "README.txt", "a/photo.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert caption_files([str(tmp_path)]) == [tmp_path / "a/one.token", tmp_path / "b/two.csv"]


def test_a_path_without_captions_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no caption file"):
        caption_files([str(tmp_path)])
    with pytest.raises(InputError, match="does not exist"):
        caption_files([str(tmp_path / "nowhere")])
