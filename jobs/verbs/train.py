"""Pretraining or fine-tuning from a preset; the same command resumes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, PositiveInt, model_validator

from jobs.executors import ExecutorConfig, refuse_relative_paths
from jobs.progress import console, progress
from jobs.worker_range import WorkerRange
from trainers.config import TrainConfig

if TYPE_CHECKING:
    from trainers.observe import Interval
    from trainers.trainer import TrainSummary

HELP = "pretraining or fine-tuning from a preset; resumes by itself from `output`"

NAMED = 5  # damaged records that the result names; the log and the checkpoint name all


class Config(TrainConfig, ExecutorConfig):
    """What to train, and on which processes."""

    workers: PositiveInt | WorkerRange | None = None  # type: ignore[assignment]  # wider than elsewhere
    """training processes of executor=ray; {min: 1, max: 8} goes on with fewer when some are lost; unset: 1"""
    gpus_per_worker: float = Field(0, ge=0)
    """of executor=ray; 0 trains on CPUs"""

    @model_validator(mode="after")
    def _inline_is_one_process(self) -> Self:
        if self.executor == "inline" and (isinstance(self.workers, WorkerRange) or (self.workers or 1) > 1):
            raise ValueError("executor=inline is one process; say executor=ray, or start several by torchrun")
        if isinstance(self.workers, WorkerRange) and self.workers.min > self.workers.max:
            raise ValueError(f"workers.min={self.workers.min} is more than workers.max={self.workers.max}; swap them")
        return self

    def worker_range(self) -> WorkerRange:
        """How many processes executor=ray may use."""
        if isinstance(self.workers, WorkerRange):
            return self.workers
        return WorkerRange(min=self.workers or 1, max=self.workers or 1)

    def training(self) -> TrainConfig:
        """The part that says what the run is, with paths that hold in any process."""
        fields = {name: getattr(self, name) for name in TrainConfig.model_fields}
        streams = {
            name: stream.model_copy(update={"dataset": _absolute(stream.dataset)})
            for name, stream in self.streams.items()
        }
        return TrainConfig.model_construct(**fields | {"streams": streams, "output": _absolute(self.output)})


def run(config: Config, *, dry_run: bool) -> int:
    """Train, and print the result, of several processes once; 1 when a SIGTERM ended the run early."""
    datasets = {f"streams.{name}.dataset": stream.dataset for name, stream in config.streams.items()}
    refuse_relative_paths({"output": config.output, **datasets})
    training = config.training()
    if dry_run:
        print(_plan(training))
        return 0
    from trainers.distributed import is_first_process

    summary = _on_ray(config, training) if config.executor == "ray" else _here(training)
    if is_first_process():
        _print(summary)
    return 0 if summary.is_complete else 1


def _print(summary: TrainSummary) -> None:
    losses = "  ".join(f"{name.removeprefix('loss/')} {value:.4f}" for name, value in summary.losses.items())
    state = "done" if summary.is_complete else "stopped: the same command goes on from here"
    print(f"step {summary.step}/{summary.steps}  {losses or 'nothing was left to do'}  {state} -> {summary.output}")
    if summary.skipped:
        steps = ", ".join(map(str, summary.skipped))
        print(
            f"{len(summary.skipped)} step(s) left out for a bad loss: {steps}; the log and `lineage` name their records"
        )
    if summary.damaged:
        named = ", ".join(f"{each.key} of {each.shard}" for each in summary.damaged[:NAMED])
        more = f" and {len(summary.damaged) - NAMED} more" if len(summary.damaged) > NAMED else ""
        counted = f"{len(summary.damaged)} damaged record" + ("s were" if len(summary.damaged) > 1 else " was")
        print(f"{counted} replaced by {'their' if len(summary.damaged) > 1 else 'its'} reserves: {named}{more}")


def _here(training: TrainConfig) -> TrainSummary:
    """Train in this process, or as this rank of a `torchrun`; a live bar on a terminal, steady lines otherwise."""
    from trainers.trainer import train

    if not console.is_terminal:
        return train(training)
    with progress("train", total=training.steps or 1, unit="steps") as bar:

        def advance(done: int, total: int, interval: Interval | None) -> None:
            bar.total = total
            note = f"loss {interval.losses['loss']:.3f}  {interval.images_per_s:.0f} img/s" if interval else None
            bar.advance(done - bar.done, note=note)

        return train(training, on_step=advance, lines=False)


def _on_ray(config: Config, training: TrainConfig) -> TrainSummary:
    from jobs.ray_train import train_on_ray

    return train_on_ray(
        training,
        workers=config.worker_range(),
        gpus_per_worker=config.gpus_per_worker,
        address=config.address,
        object_store_bytes=config.object_store_mib << 20,
    )


def _plan(training: TrainConfig) -> str:
    """Say what a run would do, without building a model."""
    from trainers.trainer import plan

    return plan(training)


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())
