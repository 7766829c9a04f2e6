"""The `verify` verb as a person runs it: one line for a sound dataset, every damage named, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from jobs.cli import main


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Four pictures in two shards."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        Image.new("RGB", (64, 48), (50 * number, 80, 90)).save(photos / f"{number}.jpg")
    table = tmp_path / "mine.csv"
    table.write_text("file,caption\n" + "".join(f"{number}.jpg,picture {number}\n" for number in range(4)))
    words = ["source.columns.image=file", "source.columns.caption=caption", "records_per_shard=2"]
    places = [f"source.annotations={table}", f"source.media={photos}", f"output={tmp_path / 'data'}"]
    assert main(["shards", "source.kind=table", *words, *places]) == 0
    return tmp_path / "data"


def test_a_sound_dataset_is_told_in_one_line(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["verify", f"dataset={dataset}"]) == 0
    assert capsys.readouterr().out == f"{dataset}: sound, 2 shards, 4 records, 4 annotations\n"


def test_damage_is_named_with_what_mends_it(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    min((dataset / "shards").iterdir()).unlink()
    capsys.readouterr()
    assert main(["verify", f"dataset={dataset}"]) == 1
    said = capsys.readouterr()
    *named, last = said.out.splitlines()
    assert any("table-all-00000.tar is missing" in line for line in named)
    assert last.startswith(f"{dataset}: {len(named)} damaged place")
    assert "repair=true" in last
    assert "2/2 shards" in said.err  # not 2 of the 1 that is left


def test_a_dry_run_tells_what_would_be_read(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["verify", f"dataset={dataset}", "--dry-run"]) == 0
    assert "would read 2 shards with 4 records" in capsys.readouterr().out
