"""The stall report: stages add up to what a step took, and cost next to nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainers.config import TrainConfig
from trainers.stopwatch import STAGES, Stopwatch
from trainers.trainer import train


def test_stages_are_counted_apart_and_taken_once() -> None:
    stopwatch = Stopwatch()
    began = stopwatch.now()
    time.sleep(0.01)
    began = stopwatch.add("read", began)
    time.sleep(0.02)
    stopwatch.add("decode", began)
    stopwatch.credit("decode", 1.0)
    spent = stopwatch.take()
    assert spent["read"] >= 0.01
    assert spent["decode"] >= 1.02
    assert spent["augment"] == 0.0
    assert set(stopwatch.take().values()) == {0.0}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_says_where_its_time_went(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]], workers: int
) -> None:
    values = tiny_training(loader_workers=workers)
    train(TrainConfig.model_validate(values), lines=False)
    rows = [json.loads(line) for line in Path(values["output"], "metrics.jsonl").read_text().splitlines()]
    by_step: dict[int, dict[str, float]] = {}
    for row in rows:
        if row["name"].startswith("seconds/"):
            by_step.setdefault(row["step"], {})[row["name"].removeprefix("seconds/")] = row["value"]
    assert by_step
    for seconds in by_step.values():
        assert seconds.keys() == {"step", "wait", "copy", *STAGES}
        assert all(seconds[stage] > 0 for stage in STAGES)
        assert seconds["wait"] + seconds["copy"] <= seconds["step"]
        if workers == 0:  # made in the training process, so making a step is what it waits for
            assert sum(seconds[stage] for stage in STAGES) <= seconds["wait"] * 1.001
