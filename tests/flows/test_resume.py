"""Training that survives: killed at any moment and resumed, it ends bit for bit where an uninterrupted run ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from model.checkpoints import read_tensors
from trainers.checkpoint import find_checkpoint
from trainers.config import TrainConfig

KILLS = 10
STEPS = 110
PRELOADED = [
    "trainers.trainer",
    "model.families.vicha.processor",
    "model.families.vicha.model",
    "torch._dynamo",  # the optimiser's first step imports it
    "torchvision.io",
    "torchvision.transforms.v2.functional",
    "safetensors.torch",
]
PATIENCE_S = 120.0


def _train(values: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(1)
    from trainers.trainer import train

    train(TrainConfig.model_validate(values), lines=False)


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[[dict[str, Any]], BaseProcess]]:
    """Start a training process; a fork server has imported torch, so that a start costs no seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    started: list[BaseProcess] = []

    def begin(values: dict[str, Any]) -> BaseProcess:
        process = context.Process(target=_train, args=(values,))
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.is_alive():
            process.kill()
        process.join()


def _losses(run: Path) -> list[dict[str, Any]]:
    """All numbers of metrics.jsonl that do not measure time."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = ("images_per_s", "wait_share")
    return [row for row in rows if row["name"] not in timed and not row["name"].startswith("seconds/")]


def _assert_same_end(run: Path, expected: Path) -> None:
    assert _losses(run) == _losses(expected)
    assert (run / "order.jsonl").read_text() == (expected / "order.jsonl").read_text()
    ended, should = find_checkpoint(run), find_checkpoint(expected)
    assert ended.step == should.step
    tensors, wanted = read_tensors(ended.weights), read_tensors(should.weights)
    assert tensors.keys() == wanted.keys()
    different = [name for name in wanted if not tensors[name].equal(wanted[name])]
    assert not different
    moments, others = ended.optimizer_state(), should.optimizer_state()
    assert all(moments[name][label].equal(value) for name in others for label, value in others[name].items())


@pytest.mark.parametrize("loader_workers", [0, 2])
def test_a_run_killed_ten_times_ends_where_an_uninterrupted_one_ends(
    tmp_path: Path,
    tiny_training: Callable[..., dict[str, Any]],
    start: Callable[[dict[str, Any]], BaseProcess],
    loader_workers: int,
) -> None:
    length = {"steps": STEPS, "checkpoint_every": 3, "log_every": 4, "keep": 2}
    whole = tiny_training(output=str(tmp_path / "whole"), **length)
    process = start(whole)
    _wait_for_checkpoint_after(0, tmp_path / "whole", process)
    began = time.monotonic()
    process.join(PATIENCE_S)
    step_s = (time.monotonic() - began) / STEPS
    assert process.exitcode == 0

    run = tmp_path / "killed"
    values = tiny_training(output=str(run), loader_workers=loader_workers, **length)
    moments = random.Random(loader_workers)
    resumed_from = []
    for kill in range(KILLS):
        resumed_from.append(_newest(run))
        process = start(values)
        if kill > 0:  # the first kill comes while the run is being set up
            _wait_for_checkpoint_after(resumed_from[-1], run, process)
        time.sleep(moments.uniform(0, 4 * step_s))
        assert process.is_alive(), "the run ended before it was killed often enough: give it more steps"
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert len(set(resumed_from)) >= KILLS - 1
    process = start(values)
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    _assert_same_end(run, tmp_path / "whole")


def _newest(run: Path) -> int:
    """The step of the newest checkpoint by name, 0 where there is none."""
    names = (path.name for path in (run / "checkpoints").glob("step-*"))
    return max((int(name.removeprefix("step-")) for name in names), default=0)


def _wait_for_checkpoint_after(step: int, run: Path, process: BaseProcess) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while _newest(run) <= step and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_sigterm_saves_at_once_and_the_same_command_goes_on(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]], start: Callable[[dict[str, Any]], BaseProcess]
) -> None:
    length = {"steps": 40, "checkpoint_every": 1000, "log_every": 7}
    whole = tiny_training(output=str(tmp_path / "whole"), **length)
    process = start(whole)
    process.join(PATIENCE_S)
    values = tiny_training(output=str(tmp_path / "asked"), **length)
    process = start(values)
    _wait_for(tmp_path / "asked" / "order.jsonl", lambda text: text.count("\n") >= 7)
    process.terminate()
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    saved = find_checkpoint(tmp_path / "asked").step
    assert 7 <= saved < 40
    process = start(values)
    process.join(PATIENCE_S)
    _assert_same_end(tmp_path / "asked", tmp_path / "whole")


def _wait_for(path: Path, enough: Callable[[str], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not (path.exists() and enough(path.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.002)
