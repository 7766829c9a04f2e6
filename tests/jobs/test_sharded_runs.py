"""Every verb that reads a run reads one whose checkpoints are sharded, and finds the same in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli import main
from model.checkpoints import read_tensors
from trainers.checkpoint import Checkpoint, CheckpointError, find_checkpoint, read_checkpoint

Tiny = Callable[..., dict[str, Any]]


def _assert_same(whole: Checkpoint, sharded: Checkpoint) -> None:
    """Both hold the same weights and moments, bit for bit."""
    assert (whole.form, sharded.form) == ("whole", "sharded")
    tensors, others = whole.tensors(), sharded.tensors()
    assert tensors.keys() == others.keys()
    assert all(others[name].equal(value) for name, value in tensors.items())
    moments, other_moments = whole.optimizer_state(), sharded.optimizer_state()
    assert moments.keys() == other_moments.keys()
    for name, labelled in moments.items():
        assert labelled.keys() == other_moments[name].keys()
        assert all(other_moments[name][label].equal(moment) for label, moment in labelled.items())


def test_both_forms_are_the_same_to_evaluate_export_average_and_init(tmp_path: Path, tiny_training: Tiny) -> None:
    runs = {form: tmp_path / form for form in ("whole", "sharded")}
    for form, run in runs.items():
        preset = tmp_path / f"{form}.yaml"
        preset.write_text(yaml.safe_dump(tiny_training(output=str(run), checkpoint_form=form, keep=1)))
        assert main(["train", str(preset)]) == 0
    _assert_same(find_checkpoint(runs["whole"]), find_checkpoint(runs["sharded"]))
    dataset = tiny_training()["streams"]["world"]["dataset"]
    scores, exported = {}, {}
    for form, run in runs.items():
        scored = tmp_path / f"{form}_scores"
        assert main(["evaluate", f"checkpoint={run}", f"dataset={dataset}", f"output={scored}", "k_test=4"]) == 0
        scores[form] = (scored / "predictions.jsonl").read_text()
        file = tmp_path / f"{form}.safetensors"
        assert main(["export", f"checkpoint={run}", f"output={file}"]) == 0
        exported[form] = read_tensors(file)
    assert scores["whole"] == scores["sharded"]
    assert all(exported["sharded"][name].equal(value) for name, value in exported["whole"].items())
    both = f"checkpoints=[{runs['whole']}, {runs['sharded']}]"
    assert main(["average", both, f"output={tmp_path / 'mean'}"]) == 0
    mean, own = find_checkpoint(tmp_path / "mean").tensors(), find_checkpoint(runs["whole"]).tensors()
    assert all(mean[name].equal(value) for name, value in own.items())
    values = tiny_training(output=str(tmp_path / "next"), init=str(runs["sharded"]), tokenizer={}, steps=1)
    preset = tmp_path / "next.yaml"
    preset.write_text(yaml.safe_dump(values))
    assert main(["train", str(preset)]) == 0


def test_a_damaged_piece_is_passed_over_for_the_checkpoint_before_it(tmp_path: Path, tiny_training: Tiny) -> None:
    values = tiny_training(checkpoint_form="sharded", keep=2)
    preset = tmp_path / "preset.yaml"
    preset.write_text(yaml.safe_dump(values))
    assert main(["train", str(preset)]) == 0
    run = Path(values["output"])
    newest = find_checkpoint(run)
    piece = next(newest.pieces.glob("*.distcp"))
    data = bytearray(piece.read_bytes())
    data[len(data) // 2] ^= 1
    piece.write_bytes(bytes(data))
    assert find_checkpoint(run).step == values["steps"] - values["checkpoint_every"]
    with pytest.raises(CheckpointError, match=f"tensors/{piece.name} differ from what was written"):
        read_checkpoint(newest.path)
    assert main(["train", str(preset)]) == 0
    assert find_checkpoint(run).step == values["steps"]
