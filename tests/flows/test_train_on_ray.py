"""Ray Train starts the same trainer: same order, one set of weights, and the workers' own words when it fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.worker_range import WorkerRange
from shards.errors import OstrakaError
from trainers.checkpoint import find_checkpoint
from trainers.config import TrainConfig
from trainers.trainer import train

pytestmark = pytest.mark.ray


def _on_ray(values: dict[str, Any]) -> Any:
    from jobs.ray_train import train_on_ray

    return train_on_ray(
        TrainConfig.model_validate(values),
        workers=WorkerRange(min=2, max=2),
        gpus_per_worker=0,
        address=None,
        object_store_bytes=150 << 20,
    )


def test_two_ray_workers_see_the_global_batches_of_one_process(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]], ray_cluster: None
) -> None:
    train(TrainConfig.model_validate(tiny_training(output=str(tmp_path / "here"))), lines=False)
    summary = _on_ray(tiny_training(output=str(tmp_path / "ray")))
    assert summary.is_complete
    assert summary.losses["loss"] > 0
    assert (tmp_path / "ray" / "order.jsonl").read_text() == (tmp_path / "here" / "order.jsonl").read_text()
    assert find_checkpoint(tmp_path / "ray").step == find_checkpoint(tmp_path / "here").step


def test_a_run_that_cannot_start_says_why_in_the_workers_words(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]], ray_cluster: None
) -> None:
    values = tiny_training(streams={"gone": {"dataset": str(tmp_path / "gone")}})
    with pytest.raises(OstrakaError, match="gone"):
        _on_ray(values)
