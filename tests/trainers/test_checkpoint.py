"""A checkpoint is there in full or not at all; a damaged one is passed over aloud."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainers.checkpoint import CheckpointError, CheckpointFolder, KeepBest, RunState, find_checkpoint, read_checkpoint


def _state(step: int) -> RunState:
    interval = ({"loss": 0.1 + 0.2},)
    return RunState(
        step=step, config={"seed": 1}, order={"seed": 1, "step": step}, sidecars={"a": "c"}, interval=interval
    )


def _save(folder: CheckpointFolder, step: int, weights: bytes = b"weights") -> Path:
    moments = {"layer.weight": {"step": torch.tensor(float(step)), "exp_avg": torch.full((2, 2), 1 / 3)}}
    return folder.save(_state(step), write_weights=lambda path: path.write_bytes(weights), optimizer_state=moments)


def test_what_is_written_is_read_back_exactly(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "run" / "checkpoints", keep=2)
    _save(folder, 7)
    found = folder.latest()
    assert found is not None
    assert found.state == _state(7)
    assert torch.equal(found.optimizer_state()["layer.weight"]["exp_avg"], torch.full((2, 2), 1 / 3))
    assert found.weights.read_bytes() == b"weights"
    assert found.run == tmp_path / "run"


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in (1, 2, 10, 9_999_999, 100_000_000):
        _save(folder, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-09999999", "step-100000000"]
    latest = folder.latest()
    assert latest is not None
    assert latest.step == 100_000_000


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.pt", "state.json"])
@pytest.mark.parametrize("damage", ["torn", "missing", "flipped"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, damage: str
) -> None:
    folder = CheckpointFolder(tmp_path, keep=3)
    _save(folder, 1)
    path = _save(folder, 2) / file
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "torn" else bytes([data[0] ^ 1]) + data[1:])
    with caplog.at_level(logging.WARNING):
        found = folder.latest()
    assert found is not None
    assert found.step == 1
    assert "step-00000002" in caplog.text
    _save(folder, 2)  # training goes on and writes the same step again
    again = folder.latest()
    assert again is not None
    assert again.step == 2


def test_a_kill_while_writing_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    _save(folder, 1)

    def killed(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.save(_state(2), write_weights=killed, optimizer_state={})
    found = folder.latest()
    assert found is not None
    assert found.step == 1
    _save(folder, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_a_person_may_name_the_run_or_one_checkpoint_of_it(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=5)
    first, second = _save(folder, 1), _save(folder, 2)
    assert find_checkpoint(tmp_path).path == second
    assert find_checkpoint(first) == read_checkpoint(first)
    with pytest.raises(CheckpointError, match="no complete checkpoint there"):
        find_checkpoint(tmp_path / "elsewhere")


def test_a_checkpoint_of_another_schema_says_so(tmp_path: Path) -> None:
    path = _save(CheckpointFolder(tmp_path, keep=1), 1)
    document = (path / "state.json").read_text()
    (path / "state.json").write_text(document.replace('"schema": 1', '"schema": 99'))
    with pytest.raises(CheckpointError, match="schema 99"):
        read_checkpoint(path)


def _save_measured(folder: CheckpointFolder, step: int, value: float | None) -> None:
    state = replace(_state(step), metrics={} if value is None else {"recall": value})
    folder.save(state, write_weights=lambda path: path.write_bytes(b"weights"), optimizer_state={})


@pytest.mark.parametrize(("mode", "best"), [("max", 3), ("min", 2)])
def test_the_best_is_kept_beside_the_newest_and_has_a_link(tmp_path: Path, mode: str, best: int) -> None:
    rule = KeepBest.model_validate({"metric": "recall", "mode": mode})
    folder = CheckpointFolder(tmp_path / "checkpoints", keep=2, best=rule)
    for step, value in enumerate([0.5, 0.1, 0.9, 0.3, float("nan"), None, 0.2], start=1):
        _save_measured(folder, step, value)
    kept = sorted(path.name for path in folder.path.iterdir())
    assert kept == ["best", *(f"step-{step:08d}" for step in (best, 6, 7))]
    found = find_checkpoint(folder.path / "best")
    assert (found.step, found.run) == (best, tmp_path)
    assert find_checkpoint(tmp_path).step == 7


def test_of_equally_good_checkpoints_the_newest_is_the_best_and_the_former_best_goes(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=1, best=KeepBest(metric="recall", mode="max"))
    for step, value in enumerate([0.9, 0.5, 0.9, 0.1], start=1):
        _save_measured(folder, step, value)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000003", "step-00000004"]


def test_a_metric_that_no_checkpoint_has_keeps_only_the_newest(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=1, best=KeepBest(metric="recal"))
    for step in (1, 2):
        _save_measured(folder, step, 0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_a_state_of_an_earlier_version_lacks_what_came_later(tmp_path: Path) -> None:
    path = _save(CheckpointFolder(tmp_path, keep=1), 1)
    document = json.loads((path / "state.json").read_text())
    for name in ("metrics", "recent_losses", "skipped", "damaged"):
        del document[name]
    (path / "state.json").write_text(json.dumps(document))
    found = read_checkpoint(path)
    assert (found.step, found.form, found.state.skipped, found.state.metrics) == (1, "whole", (), {})
