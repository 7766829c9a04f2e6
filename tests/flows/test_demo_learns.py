"""The full demo learns: recall on unseen pictures, and every objective's loss falls. Takes as long as `make demo`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full") / "demo"
    command = [sys.executable, "-m", "jobs", "demo", f"output={folder}"]
    # Timed tests set one thread per process; the demo is a single process that should have the whole machine.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_recall_on_unseen_pictures_is_far_above_chance(demo: Path) -> None:
    zero_shot = json.loads((demo / "zero_shot" / "scores.json").read_text())
    fine_tuned = json.loads((demo / "fine_tuned" / "scores.json").read_text())
    for scores in (zero_shot, fine_tuned):
        assert scores["images"] >= 400
        assert scores["chance"]["text_to_image_r1"] < 0.3
    assert zero_shot["metrics"]["text_to_image_r1"] >= 25
    assert fine_tuned["metrics"]["text_to_image_r1"] >= 50


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["contrast", "hierarchy", "match", "masked_text", "masked_image"])
def test_the_loss_of_every_objective_falls(demo: Path, name: str) -> None:
    rows = [json.loads(line) for line in (demo / "pretrain" / "metrics.jsonl").open()]
    curve = [row["value"] for row in rows if row["name"] == f"loss/{name}"]
    fifth = max(1, len(curve) // 5)
    assert sum(curve[-fifth:]) / fifth < 0.95 * sum(curve[:fifth]) / fifth
