"""Training on a cluster of several nodes: workers and nodes are killed, and the run ends as an undisturbed one by torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launches import ROOT, launch
from trainers.checkpoint import find_checkpoint

pytestmark = pytest.mark.ray

STORE_BYTES = 100 << 20
PATIENCE_S = 150.0
STEPS = 60


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without room for a worker, and two nodes with room for one each."""
    monkeypatch = pytest.MonkeyPatch()
    if "RAY_AUTH_MODE" not in os.environ:
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # loopback only
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")  # else what others use of this machine's memory kills ours
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        yield cluster
    finally:
        cluster.shutdown()
        monkeypatch.undo()


@pytest.fixture
def driver(tmp_path: Path, cluster: Any) -> Iterator[Callable[[dict[str, Any]], subprocess.Popen[str]]]:
    """Start `jobs train` on the cluster, as a person would."""
    started: list[subprocess.Popen[str]] = []

    def begin(values: dict[str, Any]) -> subprocess.Popen[str]:
        preset = tmp_path / "on_ray.yaml"
        preset.write_text(yaml.safe_dump({**values, "executor": "ray", "address": cluster.address}))
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs", "train", str(preset)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _values(tiny_training: Callable[..., dict[str, Any]], output: Path, **changes: Any) -> dict[str, Any]:
    return tiny_training(output=str(output), steps=STEPS, checkpoint_every=2, log_every=5, **changes)


def _wait_for_step(output: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not any((output / "checkpoints").glob(f"step-*{step:02d}")):
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline, f"no checkpoint of step {step} in {PATIENCE_S:g} s"
        time.sleep(0.02)


def _rank_0(output: Path) -> int:
    """The process that holds the run's lock file open."""
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(os.readlink(file) == str(output / ".lock") for file in folder.iterdir()):
                return int(folder.parent.name)
        except OSError:
            continue  # gone, or another user's
    raise AssertionError("nobody trains")


def _ended(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said[-3000:]
    return said


@pytest.mark.slow
def test_workers_asked_to_end_and_killed_are_replaced_and_the_run_ends_bit_for_bit_as_by_torchrun(
    tmp_path: Path,
    tiny_training: Callable[..., dict[str, Any]],
    driver: Callable[[dict[str, Any]], subprocess.Popen[str]],
) -> None:
    output = tmp_path / "on_ray"
    process = driver({**_values(tiny_training, output), "checkpoint_every": 7, "workers": 2})
    _wait_for_step(output, 7, process)
    os.kill(_rank_0(output), signal.SIGTERM)
    _wait_for_step(output, 28, process)
    os.kill(_rank_0(output), signal.SIGKILL)
    said = _ended(process)
    assert "was asked to end; going on after step" in said
    assert "a training process was lost" in said
    done = launch("train", _values(tiny_training, tmp_path / "torchrun"), preset=tmp_path / "torchrun.yaml", ranks=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (output / "order.jsonl").read_text() == (tmp_path / "torchrun" / "order.jsonl").read_text()
    ended, expected = (find_checkpoint(tmp_path / name).tensors() for name in ("on_ray", "torchrun"))
    assert all(ended[name].equal(value) for name, value in expected.items())


def test_without_one_of_its_nodes_the_run_goes_on_with_the_other(
    tmp_path: Path,
    tiny_training: Callable[..., dict[str, Any]],
    cluster: Any,
    driver: Callable[[dict[str, Any]], subprocess.Popen[str]],
) -> None:
    output = tmp_path / "run"
    process = driver({**_values(tiny_training, output), "workers": {"min": 1, "max": 2}})
    _wait_for_step(output, 8, process)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    said = _ended(process)
    assert "a training process was lost" in said
    assert f"step {STEPS}/{STEPS}" in said
    steps = [yaml.safe_load(line)["step"] for line in (output / "order.jsonl").read_text().splitlines()]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_a_driver_that_is_asked_to_end_lets_its_workers_save_first(
    tmp_path: Path,
    tiny_training: Callable[..., dict[str, Any]],
    driver: Callable[[dict[str, Any]], subprocess.Popen[str]],
) -> None:
    output = tmp_path / "run"
    process = driver({**_values(tiny_training, output), "steps": 100_000, "checkpoint_every": 10, "workers": 2})
    _wait_for_step(output, 10, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1, said[-3000:]
    assert f"step {find_checkpoint(output).step}/100000" in said
    assert "stopped: the same command goes on from here" in said
    assert not (output / ".stop").exists()
