from __future__ import annotations

import json
from pathlib import Path

import pytest

from concepts.name_lists import read_names
from shards.errors import InputError


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.txt", "Dog\ntraffic  light\n\ndog\n"),
        ("synonyms.txt", "dog,hound,puppy\ntraffic light,stoplight\n"),
        ("list.json", json.dumps(["dog", "Traffic light", "dog"])),
        ("coco.json", json.dumps({"categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "traffic light"}], "images": []})),
        ("categories.json", json.dumps([{"name": "dog"}, {"name": "traffic light"}])),
        ("objects.json", json.dumps([{"image_id": 1, "objects": [{"names": ["dog"]}, {"names": ["traffic light"]}]}])),
        ("attributes.json", json.dumps([{"attributes": [{"names": ["x"], "attributes": ["dog", "traffic light"]}, {}]}])),
    ],
)  # fmt: skip
def test_names_are_found_in_every_published_layout(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert read_names(tmp_path / name) == ("dog", "traffic light")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2]", b'["a', b"\xff\xfe", b"x" * 300])
def test_what_holds_no_names_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"names\.txt"):
        read_names(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        read_names(tmp_path / "nowhere.txt")
