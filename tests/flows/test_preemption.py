"""SIGTERM under `torchrun`: whichever rank is asked, all save and leave in the middle of an interval."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launches import ROOT
from trainers.checkpoint import find_checkpoint

PATIENCE_S = 120.0
LEAVES_IN_S = 30.0


def _rank(parent: int, rank: int) -> int | None:
    """The process of a rank, found among the children of its launcher."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            words = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(status[1]) == parent and f"RANK={rank}".encode() in words:
            return int(folder.name)
    return None


@pytest.mark.parametrize("whom", ["one rank", pytest.param("launcher", marks=pytest.mark.slow)])
def test_all_ranks_save_and_leave_in_the_middle_of_an_interval(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]], whom: str
) -> None:
    values = tiny_training(
        output=str(tmp_path / "run"),
        steps=100_000,
        checkpoint_every=4,
        log_every=100_000,
        checkpoint_form="sharded",
        parallel="fsdp",
    )
    preset = tmp_path / "preset.yaml"
    preset.write_text(yaml.safe_dump(values))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "jobs", "train", str(preset)),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not list((tmp_path / "run" / "checkpoints").glob("step-*")):
            assert process.poll() is None, process.communicate()[0][-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        target = process.pid if whom == "launcher" else _rank(process.pid, 1)
        assert target is not None
        os.kill(target, signal.SIGTERM)
        said, _ = process.communicate(timeout=LEAVES_IN_S)
    finally:
        process.kill()
        process.wait()
    stopped = [line for line in said.splitlines() if "SIGTERM: stopped after step" in line]
    assert stopped, said[-3000:]
    found = find_checkpoint(tmp_path / "run")
    assert f"stopped after step {found.step} with a checkpoint" in stopped[0]
    assert not list((tmp_path / "run" / "checkpoints").glob(".writing-*"))
