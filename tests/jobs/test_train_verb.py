"""The train and evaluate verbs: every preset resolves, a plan costs nothing, mistakes name the nearest key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli import main
from jobs.config import load_config, preset_names, read_preset
from jobs.verbs import evaluate, train
from model.families import load_family
from shards.config import validate
from trainers.tasks import load_task


@pytest.mark.parametrize("name", preset_names("train"))
def test_every_training_preset_resolves_to_a_run(name: str) -> None:
    streams = read_preset(name, verb="train")["streams"]
    config = load_config(
        train.Config,
        name,
        ["output=runs/x", *(f"streams.{stream}.dataset=data/{stream}" for stream in streams)],
        verb="train",
    )
    family = validate(load_family(config.family).Config, config.family, where="family")
    assert family.image_size > 0
    assert load_task(config.task).count == "annotations"
    assert config.training().streams.keys() == streams.keys()


@pytest.mark.parametrize("name", preset_names("evaluate"))
def test_every_evaluation_preset_resolves(name: str) -> None:
    words = ["checkpoint=runs/x", "dataset=data/x", "output=runs/x/test"]
    assert load_config(evaluate.Config, name, words, verb="evaluate").k_test > 0


@pytest.mark.parametrize("small", [name for name in preset_names("train") if name.endswith("_retrieval")])
def test_a_small_retrieval_preset_fits_the_weights_of_its_pretraining(small: str) -> None:
    fine_tuned, pretrained = (
        read_preset(name, verb="train")["family"] for name in (small, small.removesuffix("_retrieval"))
    )
    for part in ("image_size", "patch_size", "vision", "text", "projection"):
        assert fine_tuned[part] == pretrained[part]


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    values = tiny_training()
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(values))
    assert main(["train", str(preset), "--dry-run"]) == 0
    assert "6 steps of 8 over 36 items" in capsys.readouterr().out
    assert not Path(values["output"]).exists()


def test_train_then_evaluate_from_the_command_line(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    values = tiny_training()
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(values))
    assert main(["train", str(preset)]) == 0
    assert "step 6/6" in capsys.readouterr().out
    dataset = values["streams"]["world"]["dataset"]
    words = [f"checkpoint={values['output']}", f"dataset={dataset}", f"output={tmp_path / 'test'}", "k_test=4"]
    assert main(["evaluate", *words, "--dry-run"]) == 0
    assert "step 6 of" in capsys.readouterr().out
    assert main(["evaluate", *words]) == 0
    assert "text→image R@1" in capsys.readouterr().out
    assert (tmp_path / "test" / "scores.json").is_file()


def test_mistakes_on_the_command_line_exit_with_2_and_a_sentence(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    values = tiny_training()
    preset = tmp_path / "tiny.yaml"
    preset.write_text(yaml.safe_dump(values))
    assert main(["train", str(preset), "batchsize=4"]) == 2
    assert main(["train", str(preset), "schedule.kind=cosin"]) == 2
    assert main(["train", str(preset), "epochs=3"]) == 2
    assert main(["train", str(preset), "workers=2"]) == 2
    assert not Path(values["output"]).exists()
