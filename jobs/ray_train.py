"""Training on a Ray cluster: Ray Train starts the processes and joins them; the trainer is the one that runs everywhere.

A run that loses a worker or a node is started again from its newest checkpoint, with as many processes as the cluster then has
room for, between `min` and `max`: every number that divides the batch sees the same global batches.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from jobs.progress import LINE_INTERVAL_S
from jobs.ray_executor import attached, cluster_address
from jobs.worker_range import WorkerRange
from shards.errors import ConfigError, OstrakaError
from trainers.checkpoint import CheckpointFolder
from trainers.config import TrainConfig
from trainers.distributed import PeerError
from trainers.observe import METRICS
from trainers.presence import STOP, Termination
from trainers.trainer import TrainSummary, train

logger = logging.getLogger(__name__)

RETRIES = 2  # starts in a row that bring no new checkpoint, after a lost worker; each resumes from the newest one
ROOM_WAITED_FOR_S = 30  # for more processes than the fewest; then it is asked again how many there is room for
ANSWERED_WITHIN_S = 2.0  # by a node that is there


def train_on_ray(
    config: TrainConfig, *, workers: WorkerRange, gpus_per_worker: float, address: str | None, object_store_bytes: int
) -> TrainSummary:
    """Train with processes that Ray Train starts; CPUs speak gloo, GPUs NCCL.

    `config.output` and the datasets must lie on storage that every node sees.

    Raises:
        ConfigError: no number of workers in the range divides the batch.
        OstrakaError: the training failed on its workers; the message is theirs.
    """
    worlds = possible_worlds(config, workers)
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    # `attached(None)` starts an own Ray, so RAY_ADDRESS (which Ray sets inside a submitted job) has to be read before it.
    # Of an own Ray, one processor more than the training needs: Ray Train's controller takes a place of its own.
    with (
        attached(cluster_address(address), workers=workers.max + 1, object_store_bytes=object_store_bytes),
        _told(Path(config.output)),
        _stopped_by_file(Path(config.output)) as termination,
    ):
        needs = {"CPU": 1.0} | ({"GPU": gpus_per_worker} if gpus_per_worker else {})
        refuse_missing_room(needs, least=worlds[0], may_grow=cluster_address(address) is not None)
        return _until_done(config, worlds, needs, termination)


def possible_worlds(config: TrainConfig, workers: WorkerRange) -> tuple[int, ...]:
    """The numbers of processes in a range that the batch can be split over, in rising order.

    Raises:
        ConfigError: there is none.
    """
    what, parts = ("batch_size", config.batch_size)
    if config.batch_tokens is not None:
        what, parts = ("batch_parts", config.batch_parts)
    worlds = [n for n in range(workers.min, workers.max + 1) if parts % (n * config.micro_batches) == 0]
    if not worlds:
        named = (
            f"workers={workers.max}" if workers.min == workers.max else f"any of {workers.min} to {workers.max} workers"
        )
        raise ConfigError(
            f"{what}={parts} cannot be split over {named} with micro_batches={config.micro_batches}; choose numbers whose "
            f"product divides it"
        )
    return tuple(worlds)


def refuse_missing_room(needs: Mapping[str, float], *, least: int, may_grow: bool) -> None:
    """Stop where the fewest processes will never find room; where the cluster may grow, say that they wait for it.

    Raises:
        ConfigError: there is too little room, for good.
    """
    room = _room(needs)
    if room >= least:
        return
    wanted = " and ".join(f"{amount:g} {name}" for name, amount in needs.items())
    said = f"this Ray has room for {room} processes of {wanted}, and the run needs at least {least}"
    if not may_grow:
        raise ConfigError(f"{said}; lower workers or gpus_per_worker, or name a cluster by address=…")
    logger.warning("%s; waiting for nodes that have it", said)


class _LostError(Exception):
    """A worker or its node is gone, or there was no room for all: another start may succeed."""


def _until_done(
    config: TrainConfig, worlds: tuple[int, ...], needs: Mapping[str, float], termination: Termination
) -> TrainSummary:
    """Start the processes again and again until every step is done, or the run is asked to end."""
    folder = CheckpointFolder(Path(config.output) / "checkpoints", keep=config.keep)
    fruitless, former = 0, folder.newest_step()
    while True:
        room = _room(needs)
        world = max((n for n in worlds if n <= room), default=worlds[0])
        try:
            summary = _fit(config, world=world, needs=needs, may_be_fewer=world > worlds[0])
        except _LostError as loss:
            step = folder.newest_step()
            fruitless, former = (0 if step > former else fruitless + 1), step
            if fruitless > RETRIES:
                raise OstrakaError(
                    f"training on Ray failed {fruitless} times in a row without a new checkpoint, last by: {loss}; "
                    "the same command goes on from the newest checkpoint"
                ) from loss
            logger.warning("a training process was lost (%s); going on after step %d", loss, step)
            continue
        if summary.is_complete or termination.asked:
            return summary
        # A worker was asked to end (its node is taken away): the checkpoint is written, and the run goes on elsewhere.
        logger.warning("a training process was asked to end; going on after step %d", summary.step)


def _room(needs: Mapping[str, float]) -> int:
    """How many processes the nodes that are alive could hold, were they free."""
    import ray

    return sum(
        int(min(node["Resources"].get(name, 0.0) // amount for name, amount in needs.items()))
        for node in ray.nodes()
        if node["Alive"] and _answers(node)
    )


def _answers(node: Mapping[str, Any]) -> bool:
    """Whether a node's own process still takes calls: the cluster itself notices only after many seconds that one is gone."""
    try:
        socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), ANSWERED_WITHIN_S).close()
    except OSError:
        return False
    return True


def _fit(config: TrainConfig, *, world: int, needs: Mapping[str, float], may_be_fewer: bool) -> TrainSummary:
    """Train with this many processes, from the newest checkpoint.

    Raises:
        _LostError: a process ended for no fault of the run, or there was no room for all.
        OstrakaError: the run itself failed.
    """
    from ray.exceptions import RayActorError
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
    from ray.train.torch import TorchTrainer

    # The fewest are waited for as long as it takes, so that a cluster may grow; more than that only for a while.
    patience = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(ROOM_WAITED_FOR_S)} if may_be_fewer else {}
    trainer = TorchTrainer(
        _train_on_worker,
        train_loop_config={"config": config.model_dump(mode="json")},
        torch_config=_catching_sigterm(),
        scaling_config=ScalingConfig(num_workers=world, use_gpu="GPU" in needs, resources_per_worker=dict(needs)),
        run_config=RunConfig(
            name="ray_train",
            storage_path=str(Path(config.output).absolute()),
            # Who is lost is replaced by us, who may choose another number.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0 if may_be_fewer else -1),
        ),
    )
    logger.info("training on Ray with %d process%s", world, "" if world == 1 else "es")
    try:
        with _environment(patience):
            summary: TrainSummary = trainer.fit().return_value  # of rank 0
    except WorkerGroupError as error:
        own = [cause for cause in map(_cause, error.worker_failures.values()) if isinstance(cause, OstrakaError)]
        said = [cause for cause in own if not isinstance(cause, PeerError)]
        if said:
            raise OstrakaError(f"training on Ray failed: {said[0]}") from error
        first = error.worker_failures[min(error.worker_failures)] if error.worker_failures else error
        raise _LostError(_last_line(first)) from error
    except (TrainingFailedError, RayActorError) as error:  # the second: Ray Train's own controller was killed
        raise _LostError(_last_line(error)) from error
    return summary


def _cause(failure: BaseException) -> BaseException:
    """What was raised on a worker, out of what Ray wraps around it."""
    cause: BaseException = getattr(failure, "_base_exc", failure)
    return cause


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


@dataclass(slots=True)
class _WorkerProcess:
    """What a worker's main thread, which hears signals, and its training thread both know."""

    termination: Termination = field(default_factory=Termination)
    trains: bool = False
    former: Any = None  # handler of SIGTERM

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Ask the training to end; outside of it let Ray do as it would."""
        if self.trains:
            self.termination.ask()
        elif callable(self.former):
            self.former(number, frame)


_here = _WorkerProcess()  # one per process, as signals are


def _train_on_worker(loop: dict[str, Any]) -> TrainSummary:
    """One training process; Ray Train has joined it to the others."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = TrainConfig.model_validate(loop["config"])
    _here.termination.watch_for(Path(config.output) / STOP)
    _here.trains = True
    try:
        return train(config, termination=_here.termination)
    finally:
        _here.trains = False


def _hear_sigterm() -> None:
    """Runs on a worker's main thread, before the training begins on another one."""
    _here.former = signal.signal(signal.SIGTERM, _here.hear)


def _catching_sigterm() -> Any:
    """Ray Train's torch backend, which also lets workers hear SIGTERM."""
    from ray.train.torch import TorchConfig

    joining = TorchConfig().backend_cls

    class Backend(joining):  # type: ignore[misc, valid-type]
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            super().on_start(worker_group, backend_config)
            worker_group.execute(_hear_sigterm)

    class Hearing(TorchConfig):  # type: ignore[misc]
        @property
        def backend_cls(self) -> Any:
            return Backend

    return Hearing()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Variables that Ray Train hands on to its controller, unless the user has set them."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _stopped_by_file(output: Path) -> Iterator[Termination]:
    """Pass a SIGTERM of this process on to the workers, who cannot hear it, by a file in the run folder."""
    termination = Termination()
    mark = output / STOP
    mark.unlink(missing_ok=True)

    def pass_on(number: int, frame: FrameType | None) -> None:
        termination.ask()
        output.mkdir(parents=True, exist_ok=True)
        mark.touch()

    caught = threading.current_thread() is threading.main_thread()
    former = signal.signal(signal.SIGTERM, pass_on) if caught else None
    try:
        yield termination
    finally:
        if caught:
            signal.signal(signal.SIGTERM, former)
        mark.unlink(missing_ok=True)


@contextmanager
def _told(output: Path) -> Iterator[None]:
    """Repeat on this terminal what rank 0 writes into metrics.jsonl: the newest of it once per interval, and at the end."""
    ended = threading.Event()
    watcher = threading.Thread(target=_tell, args=(output / METRICS, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _tell(metrics: Path, ended: threading.Event) -> None:
    read = metrics.stat().st_size if metrics.exists() else 0  # what an earlier run logged was told by it
    is_over = False
    while not is_over:
        is_over = ended.wait(LINE_INTERVAL_S)
        rows, read = _rows_since(metrics, read)
        steps: dict[int, dict[str, float]] = {}
        for row in rows:
            steps.setdefault(row["step"], {})[row["name"]] = row["value"]
        whole = [step for step, values in steps.items() if {"loss", "images_per_s"} <= values.keys()]
        if whole:
            values = steps[whole[-1]]
            logger.info("step %d  loss %.3f  %.0f img/s", whole[-1], values["loss"], values["images_per_s"])


def _rows_since(metrics: Path, read: int) -> tuple[list[dict[str, Any]], int]:
    """The rows behind the first `read` bytes, and how many bytes are read then; a line that is being written is left."""
    if not metrics.exists():
        return [], 0
    with metrics.open("rb") as file:
        file.seek(max(0, read - 1))
        if read and file.read(1) != b"\n":  # a resumed run has cut off what it does again
            return [], file.seek(0, os.SEEK_END)
        lines = file.read()
    whole = lines[: lines.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], read + len(whole)
