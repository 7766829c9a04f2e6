"""Training on a Ray cluster: Ray Train starts the processes and joins them; the trainer is the one that runs everywhere."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.progress import LINE_INTERVAL_S
from jobs.ray_executor import attached, cluster_address
from shards.errors import ConfigError, OstrakaError
from trainers.config import TrainConfig
from trainers.observe import METRICS
from trainers.trainer import TrainSummary, train

logger = logging.getLogger(__name__)

RETRIES = 2  # after a lost worker; every start resumes from the newest checkpoint, so none repeats finished work


def train_on_ray(
    config: TrainConfig, *, workers: int, gpus_per_worker: float, address: str | None, object_store_bytes: int
) -> TrainSummary:
    """Train with `workers` processes that Ray Train starts; CPUs speak gloo, GPUs NCCL.

    `config.output` and the datasets must lie on storage that every node sees.

    Raises:
        ConfigError: the batch does not divide among the workers.
        OstrakaError: the training failed on its workers; the message is theirs.
    """
    if config.batch_size % workers:
        raise ConfigError(
            f"batch_size={config.batch_size} cannot be split over workers={workers}; choose a number that divides it"
        )
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    # `attached(None)` starts an own Ray, so RAY_ADDRESS (which Ray sets inside a submitted job) has to be read before it.
    # Of an own Ray, one processor more than the training needs: Ray Train's controller takes a place of its own.
    with (
        attached(cluster_address(address), workers=workers + 1, object_store_bytes=object_store_bytes),
        _told(Path(config.output)),
    ):
        return _fit(config, workers=workers, gpus_per_worker=gpus_per_worker)


def _fit(config: TrainConfig, *, workers: int, gpus_per_worker: float) -> TrainSummary:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    needs = {"CPU": 1.0} | ({"GPU": gpus_per_worker} if gpus_per_worker else {})
    trainer = TorchTrainer(
        _train_on_worker,
        train_loop_config={"config": config.model_dump(mode="json")},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus_per_worker > 0, resources_per_worker=needs),
        run_config=RunConfig(
            name="ray_train",
            storage_path=str(Path(config.output).absolute()),
            failure_config=FailureConfig(max_failures=RETRIES),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise OstrakaError(f"training on Ray failed: {_reason(error)}") from error
    summary: TrainSummary = result.return_value  # of rank 0
    return summary


def _train_on_worker(loop: dict[str, Any]) -> TrainSummary:
    """One training process; Ray Train has joined it to the others."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return train(TrainConfig.model_validate(loop["config"]))


def _reason(error: BaseException) -> str:
    """Find the workers' own sentence in what Ray wraps around it."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    lines = str(failures[min(failures)] if failures else error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


@contextmanager
def _told(output: Path) -> Iterator[None]:
    """Repeat on this terminal what rank 0 writes into metrics.jsonl, one line per interval."""
    ended = threading.Event()
    watcher = threading.Thread(target=_tell, args=(output / METRICS, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _tell(metrics: Path, ended: threading.Event) -> None:
    told = 0
    while not ended.wait(LINE_INTERVAL_S):
        if not metrics.exists():
            continue
        values: dict[str, float] = {}
        step = told
        for line in metrics.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # rank 0 is writing this line right now
            step, values[row["name"]] = row["step"], row["value"]
        if step > told:
            told = step
            logger.info("step %d  loss %.3f  %.0f img/s", step, values["loss"], values["images_per_s"])
