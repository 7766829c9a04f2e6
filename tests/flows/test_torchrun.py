"""`torchrun` with two processes sees the same global batches as one process, and ends with one set of weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainers.checkpoint import find_checkpoint

ROOT = Path(__file__).resolve().parent.parent.parent


def _command(tmp_path: Path, values: dict[str, Any], launcher: list[str]) -> None:
    preset = tmp_path / f"{Path(values['output']).name}.yaml"
    preset.write_text(yaml.safe_dump(values))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launcher, "-m", "jobs", "train", str(preset)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def _means(run: Path, name: str) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["value"] for row in rows if row["name"] == name]


def test_two_processes_see_the_global_batches_of_one(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]]
) -> None:
    one, two = (tiny_training(output=str(tmp_path / name)) for name in ("one", "two"))
    _command(tmp_path, one, [sys.executable])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    _command(tmp_path, two, torchrun)
    assert (tmp_path / "two" / "order.jsonl").read_text() == (tmp_path / "one" / "order.jsonl").read_text()
    assert find_checkpoint(tmp_path / "two").step == one["steps"]
    # Patch noise and masked words are drawn per example, so this loss is the same mean however the batch is split; only
    # dropout, which is drawn per process, and what follows from it differ.
    first, second = _means(tmp_path / "one", "loss/masked_image"), _means(tmp_path / "two", "loss/masked_image")
    assert second == pytest.approx(first, rel=0.05)
