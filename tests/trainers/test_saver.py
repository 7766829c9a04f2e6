"""Checkpoints written in the background: valid or absent, whatever is killed when, and failures are told."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import time
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from model.family import Family
from trainers.checkpoint import CheckpointError, CheckpointFolder, Form, RunState
from trainers.distributed import Group
from trainers.saver import Saver, restore_after_layout, restore_before_layout

KILLS = 12
SIZE = 200_000  # numbers per tensor, so that writing one takes a while


class Net(nn.Module):
    """Stands for a family: some weights and a buffer, all filled with the number of the step."""

    def __init__(self, size: int = SIZE) -> None:
        super().__init__()
        self.layers = nn.ParameterList(nn.Parameter(torch.zeros(size)) for _ in range(4))
        self.register_buffer("queue", torch.zeros(size))


def _at(step: int, size: int = SIZE) -> tuple[Net, torch.optim.Optimizer]:
    net = Net(size)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    sum(layer.sum() for layer in net.layers).backward()  # type: ignore[union-attr]
    optimizer.step()
    _fill(net, optimizer, step)
    return net, optimizer


def _fill(net: Net, optimizer: torch.optim.Optimizer, step: int) -> None:
    with torch.no_grad():
        for value in net.state_dict().values():
            value.fill_(step)
        for moments in optimizer.state.values():
            for moment in moments.values():
                moment.fill_(step)


def _state(step: int, **changes: Any) -> RunState:
    return RunState(step=step, config={"seed": 1}, order={"step": step}, **changes)


def _save_for_ever(folder: str, form: Form) -> None:
    torch.set_num_threads(1)
    checkpoints = CheckpointFolder(Path(folder), keep=2)
    saver = Saver(checkpoints, Group(), form=form)
    net, optimizer = _at(0)
    for step in range(checkpoints.newest_step() + 1, 10_000):
        _fill(net, optimizer, step)
        saver.save(_state(step), cast(Family, net), optimizer)


@pytest.fixture(scope="module")
def server() -> Any:
    """Starts processes that have torch imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainers.saver", "safetensors.torch", "torch._dynamo"])
    return context


@pytest.mark.parametrize("form", ["whole", "sharded"])
def test_a_writer_killed_at_any_moment_leaves_whole_checkpoints_of_one_step_each(
    tmp_path: Path, server: Any, form: Form
) -> None:
    rng, reached = random.Random(5), 0
    folder = CheckpointFolder(tmp_path, keep=2)
    for _ in range(KILLS):
        process = server.Process(target=_save_for_ever, args=(str(tmp_path), form))
        process.start()
        deadline = time.monotonic() + 60
        while folder.newest_step() <= reached and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.06))
        process.kill()
        process.join()
        for path in tmp_path.glob("step-*"):
            found = folder.latest()
            assert found is not None, path
        found = folder.latest()
        assert found is not None
        assert (found.form, found.step > reached) == (form, True)
        reached = found.step
        assert found.step == folder.newest_step(), "the newest folder is complete"
        numbers = {float(number) for tensor in found.tensors().values() for number in tensor.unique()}
        moments = found.optimizer_state().values()
        numbers |= {float(number) for labelled in moments for tensor in labelled.values() for number in tensor.unique()}
        assert numbers == {float(found.step)}


@pytest.mark.parametrize("form", ["whole", "sharded"])
def test_what_is_saved_is_restored_bit_for_bit(tmp_path: Path, form: Form) -> None:
    net, optimizer = _at(1, size=10)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    saver = Saver(CheckpointFolder(tmp_path, keep=1), Group(), form=form)
    saver.save(_state(4, recent_losses=(1.5, 2.5), skipped=(3,)), cast(Family, net), optimizer)
    expected = {name: value.clone() for name, value in net.state_dict().items()}
    _fill(net, optimizer, 9)  # the next step does not wait
    saver.settle()
    found = CheckpointFolder(tmp_path, keep=1).latest()
    assert found is not None
    assert (found.state.recent_losses, found.state.skipped) == ((1.5, 2.5), (3,))
    other = Net(10)
    empty = torch.optim.AdamW(other.parameters(), lr=1e-3)
    restore_before_layout(cast(Family, other), found)
    restore_after_layout(cast(Family, other), empty, found, Group())
    assert all(other.state_dict()[name].equal(value) for name, value in expected.items())
    for parameter in other.parameters():
        assert all(bool((moment == 1).all()) for moment in empty.state[parameter].values())


def test_a_sharded_checkpoint_of_another_model_is_refused_in_a_sentence(tmp_path: Path) -> None:
    saver = Saver(CheckpointFolder(tmp_path, keep=1), Group(), form="sharded")
    net, optimizer = _at(1, size=10)
    saver.save(_state(1), cast(Family, net), optimizer)
    saver.settle()
    found = CheckpointFolder(tmp_path, keep=1).latest()
    assert found is not None
    other = Net(11)
    empty = torch.optim.AdamW(other.parameters(), lr=1e-3)
    with pytest.raises(CheckpointError, match="does not fit this model"):
        restore_after_layout(cast(Family, other), empty, found, Group())


def test_a_write_in_the_background_that_fails_is_told_at_the_next_step_and_the_former_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    saver = Saver(folder, Group(), form="sharded")
    net, optimizer = _at(1, size=10)
    saver.save(_state(1), cast(Family, net), optimizer)
    saver.settle()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "publish", full)
    saver.save(_state(2), cast(Family, net), optimizer)
    with pytest.raises(CheckpointError, match=r"No space left on device.*the one before it is complete"):
        saver.settle()
    saver.check()  # told once
    found = folder.latest()
    assert found is not None
    assert found.step == 1
    shutil.rmtree(tmp_path)
