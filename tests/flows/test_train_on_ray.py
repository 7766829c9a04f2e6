"""Ray Train starts the same trainer: same order, one set of weights, and the workers' own words when it fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.ray_train import possible_worlds
from jobs.worker_range import WorkerRange
from shards.errors import ConfigError, OstrakaError
from tests.launches import launch
from trainers.checkpoint import find_checkpoint
from trainers.config import TrainConfig

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


def test_two_ray_workers_train_bit_for_bit_as_torchrun_does(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]], ray_cluster: None
) -> None:
    done = launch("train", tiny_training(output=str(tmp_path / "torchrun")), preset=tmp_path / "preset.yaml", ranks=2)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = _on_ray(tiny_training(output=str(tmp_path / "ray")))
    assert summary.is_complete
    assert summary.losses["loss"] > 0
    assert (tmp_path / "ray" / "order.jsonl").read_text() == (tmp_path / "torchrun" / "order.jsonl").read_text()
    ended, expected = (find_checkpoint(tmp_path / name) for name in ("ray", "torchrun"))
    assert ended.step == expected.step
    tensors = ended.tensors()
    assert all(tensors[name].equal(value) for name, value in expected.tensors().items())


def test_a_run_that_cannot_start_says_why_in_the_workers_words(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]], ray_cluster: None
) -> None:
    values = tiny_training(streams={"gone": {"dataset": str(tmp_path / "gone")}})
    with pytest.raises(OstrakaError, match="gone"):
        _on_ray(values)


def test_workers_that_the_batch_cannot_be_split_over_are_refused_before_anything_starts(
    tiny_training: Callable[..., dict[str, Any]],
) -> None:
    config = TrainConfig.model_validate(tiny_training(micro_batches=2))
    assert possible_worlds(config, WorkerRange(min=1, max=7)) == (1, 2, 4)
    with pytest.raises(ConfigError, match=r"batch_size=8 cannot be split over workers=3 with micro_batches=2"):
        possible_worlds(config, WorkerRange(min=3, max=3))
    with pytest.raises(ConfigError, match=r"any of 5 to 7 workers"):
        possible_worlds(config, WorkerRange(min=5, max=7))
