"""Options of a run that change what a step costs leave what it computes as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from model.families import load_family
from model.tokenizer import SPECIALS, WordPiece
from shards.config import validate
from shards.errors import BudgetError, ConfigError
from shards.reader import open_dataset
from trainers.assembly import open_streams, settle_vocabulary
from trainers.checkpoint import find_checkpoint
from trainers.config import TrainConfig
from trainers.imported import ImportedConfig, write_imported
from trainers.trainer import train

Tiny = Callable[..., dict[str, Any]]


class Interrupted(Exception):
    """Stands for whatever ends a process between two steps."""


def _weights(values: dict[str, Any], *, stop_after: int | None = None) -> dict[str, Tensor]:
    def interrupt(done: int, steps: int, interval: object) -> None:
        if done == stop_after:
            raise Interrupted

    train(TrainConfig.model_validate(values), on_step=interrupt, lines=False)
    return dict(find_checkpoint(Path(values["output"])).tensors())


def test_checkpointed_activations_may_begin_at_a_resumption_and_end_in_the_same_weights(
    tmp_path: Path, tiny_training: Tiny
) -> None:
    plain = _weights(tiny_training(output=str(tmp_path / "plain")))
    halves = tiny_training(output=str(tmp_path / "halves"))
    with pytest.raises(Interrupted):
        _weights(halves, stop_after=3)
    resumed = _weights({**halves, "checkpoint_activations": True})
    assert all(resumed[name].equal(value) for name, value in plain.items())


def test_channels_last_reaches_the_same_losses_and_resumes_bit_for_bit(tmp_path: Path, tiny_training: Tiny) -> None:
    plain = train(TrainConfig.model_validate(tiny_training(output=str(tmp_path / "plain"))), lines=False)
    values = tiny_training(output=str(tmp_path / "whole"), channels_last=True)
    whole = train(TrainConfig.model_validate(values), lines=False)
    assert dict(whole.losses) == pytest.approx(dict(plain.losses), rel=1e-4)
    halves = tiny_training(output=str(tmp_path / "halves"), channels_last=True)
    with pytest.raises(Interrupted):
        _weights(halves, stop_after=3)
    resumed = _weights(halves)
    expected = find_checkpoint(Path(values["output"])).tensors()
    assert all(resumed[name].equal(value) for name, value in expected.items())


def test_a_folder_of_imported_weights_is_no_run_to_go_on_with(tmp_path: Path, tiny_training: Tiny) -> None:
    values = tiny_training(output=str(tmp_path / "imported"))
    kind = load_family(values["family"])
    config = kind.Config.model_validate(values["family"]).with_vocabulary(len(SPECIALS))
    imported = ImportedConfig(imported_from=("a file",), family=config.model_dump(mode="json"))
    write_imported(tmp_path / "imported", kind.build(config), imported, WordPiece(SPECIALS))
    with pytest.raises(ConfigError, match=r"no training to go on with; start one in another output, with init="):
        train(TrainConfig.model_validate(values), lines=False)


def test_a_metric_that_nothing_measures_is_told_at_the_first_interval_and_may_be_mended(
    tmp_path: Path, tiny_training: Tiny
) -> None:
    values = tiny_training(keep_best={"metric": "losses/match"})
    with pytest.raises(ConfigError, match=r"keep_best.metric='losses/match' .* did you mean 'loss/match'"):
        train(TrainConfig.model_validate(values), lines=False)
    mended = train(TrainConfig.model_validate(values | {"keep_best": {"metric": "loss/match"}}), lines=False)
    assert mended.is_complete
    assert (tmp_path / "run" / "checkpoints" / "best").is_symlink()


@pytest.mark.parametrize("budget", [3, 2])
def test_damaged_headers_are_left_out_of_the_vocabulary_within_the_budget(
    tmp_path: Path, tiny_training: Tiny, caplog: pytest.LogCaptureFixture, budget: int
) -> None:
    config = TrainConfig.model_validate(tiny_training(damage={"count": budget, "share": 0.0}))
    dataset = open_dataset(tmp_path / "world")
    tar = tmp_path / "world" / "shards" / f"{dataset.manifest[1].name}.tar"
    content = bytearray(tar.read_bytes())
    for row in (0, 4, 8):
        _, offset, _, _ = next(member for member in dataset.index(1).members(row) if member[0] == "json")
        content[offset] ^= 0xFF
    tar.write_bytes(content)
    if budget == 2:
        with pytest.raises(BudgetError, match="3 records are damaged and the budget allows 2"):
            settle_vocabulary(config, open_streams(config), tmp_path / "run")
        return
    words = settle_vocabulary(config, open_streams(config), tmp_path / "run").read_text().splitlines()
    assert {"blue", "disc"} <= set(words)
    assert sum("left out of the vocabulary" in line for line in caplog.messages) == 3


def test_an_address_of_a_store_is_no_folder_for_a_run(tiny_training: Tiny) -> None:
    with pytest.raises(ConfigError, match="output: 's3://bucket/run' is in an object store"):
        validate(TrainConfig, tiny_training(output="s3://bucket/run"))
