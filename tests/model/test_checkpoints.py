"""Weights on disk: bit for bit, safely, and with a report of what did not fit."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from torch import nn

from model.checkpoints import average, fill, load_weights, read_tensors, save_weights


class Net(nn.Module):
    """A position table, a tied matrix, and a queue."""

    def __init__(self, grid: int = 2, queue: int = 4) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.randn(1, 1 + grid * grid, 4))
        self.line = nn.Linear(4, 3)
        self.tied = nn.Linear(4, 3, bias=False)
        self.tied.weight = self.line.weight
        self.register_buffer("queue", torch.randn(4, queue))

    def position_grids(self) -> dict[str, int]:
        return {"table": self.grid}


def test_saved_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    net, other = Net(), Net()
    save_weights(net, tmp_path / "w.safetensors", {"step": "7"})
    report = load_weights(other, tmp_path / "w.safetensors")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in net.state_dict().items())
    assert not report.missing + report.unexpected + report.resized + report.kept
    assert other.tied.weight is other.line.weight


def test_another_grid_is_resized_another_queue_kept_and_both_are_reported(tmp_path: Path) -> None:
    save_weights(Net(), tmp_path / "w.safetensors")
    net = Net(grid=3, queue=6)
    queue = net.queue.clone()
    report = load_weights(net, tmp_path / "w.safetensors")
    assert report.resized == ("table",)
    assert report.kept == ("queue",)
    assert torch.equal(net.queue, queue)
    assert "resized: table" in str(report)


def test_what_is_missing_or_unexpected_is_named() -> None:
    report = fill(nn.Linear(2, 2), {"weight": torch.zeros(2, 2), "surprise": torch.zeros(1)})
    assert report.missing == ("bias",)
    assert report.unexpected == ("surprise",)
    assert "1 missing: bias; 1 unexpected: surprise" in str(report)


def test_a_parameter_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weight has shape \(3, 2\) in the file and \(2, 2\)"):
        fill(nn.Linear(2, 2), {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)})


@pytest.mark.parametrize("entry", [None, "model", "state_dict"])
def test_old_torch_files_are_read_whatever_holds_the_state(tmp_path: Path, entry: str | None) -> None:
    state = nn.Linear(2, 2).state_dict()
    torch.save({entry: state, "epoch": 3} if entry else state, tmp_path / "old.pth")
    assert read_tensors(tmp_path / "old.pth").keys() == state.keys()


def test_a_file_with_other_objects_is_refused_unless_they_are_allowed(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(1)}, "args": argparse.Namespace(lr=1)}, tmp_path / "old.pth")
    with pytest.raises(ValueError, match=r"cannot be read as tensors alone: .* which are never run"):
        read_tensors(tmp_path / "old.pth")
    with pytest.raises(ValueError, match="is a folder; give the file"):
        read_tensors(tmp_path)
    assert read_tensors(tmp_path / "old.pth", allowed=(argparse.Namespace,)).keys() == {"w"}


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
def test_damaged_and_missing_files_are_refused_with_their_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: no such weights file"):
        read_tensors(tmp_path / name)
    (tmp_path / name).write_bytes(b"\x80\x02 half a file")
    with pytest.raises(ValueError, match=name):
        read_tensors(tmp_path / name)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {"epoch": 3}}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="holds no tensors"):
        read_tensors(tmp_path / "empty.pth")


def test_an_average_is_weighted_and_keeps_the_first_ones_names_and_whole_numbers() -> None:
    first = {"w": torch.tensor([0.0, 4.0]), "only": torch.tensor([1.0]), "pointer": torch.tensor([3])}
    second = {"w": torch.tensor([4.0, 0.0]), "pointer": torch.tensor([5]), "more": torch.tensor([9.0])}
    found = average([first, second], [0.25, 0.75])
    assert found.keys() == first.keys()
    assert found["w"].tolist() == [3.0, 1.0]
    assert found["only"].tolist() == [1.0]  # over those that have it
    assert found["pointer"].tolist() == [3]
    assert average([first, second])["w"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize("weights", [[1.0], [0.5, 0.6], [float("nan"), 1.0]])
def test_weights_that_do_not_fit_the_checkpoints_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="adding up to 1"):
        average([{"w": torch.zeros(1)}] * 2, weights)


def test_checkpoints_of_other_shapes_are_not_averaged() -> None:
    with pytest.raises(ValueError, match="w has another shape"):
        average([{"w": torch.zeros(1)}, {"w": torch.zeros(2)}])
