"""Tensors in pieces: read back bit for bit, and a table of contents that runs nothing."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trainers.pieces import MODEL, OPTIMIZER, PiecesError, fill_from_pieces, piece_sizes, read_pieces, write_pieces


def _tensors() -> dict[str, Tensor]:
    return {
        "model/a.weight": torch.randn(3, 4),
        "model/pointer": torch.tensor([7]),
        "model/half": torch.randn(5).bfloat16(),
        "optimizer/a.weight/exp_avg": torch.randn(3, 4),
        "optimizer/a.weight/step": torch.tensor(3.0),
    }


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    write_pieces(tensors, path, talk=None, alone=True).result(60)


def test_what_was_written_is_read_back_whole_and_in_place(tmp_path: Path) -> None:
    tensors = _tensors()
    _write(tmp_path, tensors)
    assert piece_sizes(tmp_path) == {name: tensor.shape for name, tensor in tensors.items()}
    for prefix in (MODEL, OPTIMIZER):
        expected = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
        found = read_pieces(tmp_path, prefix)
        assert found.keys() == expected.keys()
        assert all(found[name].equal(each) and found[name].dtype == each.dtype for name, each in expected.items())
    rooms = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    fill_from_pieces(rooms, tmp_path, talk=None, alone=True)
    assert all(rooms[name].equal(each) for name, each in tensors.items())


def test_what_changes_after_the_call_is_not_what_is_written(tmp_path: Path) -> None:
    tensor = torch.ones(1000)
    written = write_pieces({"model/a": tensor}, tmp_path, talk=None, alone=True)
    tensor.zero_()
    written.result(60)
    assert read_pieces(tmp_path, MODEL)["a"].equal(torch.ones(1000))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model/new": torch.zeros(1)}, "1 tensors are only in the checkpoint or only in the model, first 'model/new'"),
        ({"model/a.weight": torch.zeros(4, 3)}, r"model/a\.weight has shape \(3, 4\) there and \(4, 3\) here"),
    ],
)
def test_pieces_of_another_model_are_refused(tmp_path: Path, change: dict[str, Tensor], message: str) -> None:
    _write(tmp_path, _tensors())
    with pytest.raises(PiecesError, match=message):
        fill_from_pieces(_tensors() | change, tmp_path, talk=None, alone=True)


class _Harmful:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, ("harm",)


def test_a_table_of_contents_that_calls_anything_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".metadata").write_bytes(pickle.dumps(_Harmful()))
    with pytest.raises(PiecesError, match="which no table of contents needs"):
        read_pieces(tmp_path, MODEL)
    assert not (tmp_path / "harm").exists()


def test_a_folder_without_pieces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PiecesError, match="table of contents cannot be read"):
        read_pieces(tmp_path, MODEL)
