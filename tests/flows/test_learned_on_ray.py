"""Columns of concepts, negatives and filters: the same bytes inline and on Ray, with killed workers and with a lost node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos_concepts import MortalAnnotator
from jobs.cli import main
from shards.reader import Dataset, open_dataset
from tests.concepts.worlds import captioned_dataset, tiny_clip

__all__ = ["captioned_dataset", "tiny_clip"]

pytestmark = pytest.mark.ray
ROOT = Path(__file__).resolve().parents[2]


def commands(clip: dict[str, Any]) -> list[list[str]]:
    """Every verb that learns columns, with the options under which each has something to do in the captioned world."""
    embedder = [f"embedder.model={clip['model']}", f"embedder.pretrained={clip['pretrained']}"]
    return [
        ["concepts", *embedder, "phrases.tagger=rules", "min_count=1", "top_k=4"],
        ["negatives", *embedder, "guard_cosine=1", "guard_picture=1", "top_k=3"],
        ["negatives", "kind=swaps", "phrases.tagger=rules", "min_seen=1"],
        ["negatives", "kind=pools"],
        ["filter", *embedder, "keep=0.5"],
        ["filter", *embedder, "by=duplicates", "likeness=0.9", "column=unique"],
    ]


def sidecars(dataset: Dataset) -> dict[str, bytes]:
    root = Path(dataset.path) / "sidecars"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("workers", [1, 2])
def test_every_column_is_the_same_on_ray_as_in_one_process(
    captioned_dataset: Callable[..., Dataset], tiny_clip: Callable[..., dict[str, Any]], tmp_path: Path, workers: int
) -> None:
    inline, clip = captioned_dataset(), tiny_clip()
    on_ray = open_dataset(shutil.copytree(inline.path, tmp_path / "on-ray"))
    for words in commands(clip):
        assert main([*words, f"dataset={inline.path}"]) == 0
        assert main([*words, f"dataset={on_ray.path}", "executor=ray", f"workers={workers}"]) == 0
    expected = sidecars(inline)
    assert len({name.split("/")[0].rpartition("-")[0] for name in expected}) == 10
    assert sidecars(on_ray) == expected


@pytest.mark.usefixtures("ray_cluster")
def test_the_death_of_a_worker_changes_no_byte(
    captioned_dataset: Callable[..., Dataset],
    tiny_clip: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inline, words = captioned_dataset(), commands(tiny_clip())[0]
    on_ray = open_dataset(shutil.copytree(inline.path, tmp_path / "on-ray"))
    assert main([*words, f"dataset={inline.path}"]) == 0
    marks = tmp_path / "marks"
    marks.mkdir()
    mortal = partial(MortalAnnotator, deaths={1: 2}, marks=str(marks), moment="during")  # half way through a file
    monkeypatch.setattr("jobs.verbs.concepts.ConceptAnnotator", mortal)
    assert main([*words, f"dataset={on_ray.path}", "executor=ray", "workers=2"]) == 0
    assert {mark.name for mark in marks.iterdir()} == {"1"}
    left = {name: data for name, data in sidecars(on_ray).items() if not name.endswith(".tmp")}
    assert left == sidecars(inline)


def test_the_loss_of_a_node_leaves_the_work_to_the_other_and_changes_no_byte(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TMPDIR": "/tmp"}
    environment.pop("RAY_ADDRESS", None)
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos_concepts", "--trials", "1", "--kinds", "node"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    assert "1 trials, 1 kills, 0 wrong" in result.stdout
