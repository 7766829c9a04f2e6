"""The files that CONTRIBUTING.md shows work as they stand there: a dataset and a task, each added by one file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

import pipelines.sources
import trainers.tasks
from jobs.cli import main

GUIDE = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


def shown(path: str) -> str:
    """The Python that the guide shows as the whole of a file."""
    match = re.search(rf"`{re.escape(path)}`[^`]*(?:`[^`]*`[^`]*)?```python\n(.*?)```", GUIDE, re.DOTALL)
    assert match, f"the guide shows no {path}"
    return match[1]


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the guide's two files, each found beside the files of its room, and raw data for them."""
    for package, path in (
        (pipelines.sources, "pipelines/sources/my_captions.py"),
        (trainers.tasks, "trainers/tasks/shortest.py"),
    ):
        file = tmp_path / path
        file.parent.mkdir(parents=True)
        file.write_text(shown(path), encoding="utf-8")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(file.parent)])
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(8):
        Image.new("RGB", (32, 24), (30 * number, 90, 120)).save(photos / f"{number}.jpg")
    lines = [{"file": f"{number}.jpg", "caption": f"picture {number}"} for number in range(8)]
    lines += [
        {"file": "9.jpg", "caption": "of nothing"},
        {"caption": "of no file"},
        {"file": "7.jpg", "caption": "again"},
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def convert(toys: Path) -> int:
    places = {"source.annotations": "mine.jsonl", "source.media": "photos", "output": "data"}
    return main(["shards", "source.kind=my_captions", *(f"{key}={toys / name}" for key, name in places.items())])


def test_the_dataset_of_the_guide_is_converted_with_its_rejects_by_name(
    toys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(toys) == 0
    said = capsys.readouterr().out
    assert "my_captions-all: 8 records, 9 annotations" in said
    assert "rejects: missing_media 2" in said
    assert main(["shards", "source.kind=my_captions", "--help"]) == 0
    assert "The folder of the pictures." in capsys.readouterr().out


def test_the_task_of_the_guide_trains(toys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(toys) == 0
    words = [
        "train",
        "vicha_small",
        "task={kind: shortest}",
        f"streams.data.dataset={toys / 'data'}",
        f"output={toys / 'run'}",
    ]
    words += [
        "streams.data.concepts=null",
        "family.concepts=null",
        "batch_size=4",
        "steps=1",
        "tensorboard=false",
        "device=cpu",
    ]
    assert main(words) == 0
    assert "step 1/1" in capsys.readouterr().out
