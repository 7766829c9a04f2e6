"""A run from its config: what it writes, how it goes on, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.checkpoints import read_tensors
from shards.errors import ConfigError, DatasetError, OstrakaError
from shards.reader import Dataset
from trainers.checkpoint import find_checkpoint
from trainers.config import TrainConfig
from trainers.meter import NonFiniteLossError
from trainers.trainer import TrainSummary, plan, train

Tiny = Callable[..., dict[str, Any]]


class Interrupted(Exception):
    """Stands for whatever ends a process between two steps."""


def _train(values: dict[str, Any], *, stop_after: int | None = None) -> TrainSummary:
    def interrupt(done: int, steps: int, interval: object) -> None:
        if done == stop_after:
            raise Interrupted

    return train(TrainConfig.model_validate(values), on_step=interrupt, lines=False)


def _metrics(values: dict[str, Any], name: str) -> dict[int, float]:
    rows = [json.loads(line) for line in (Path(values["output"]) / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["value"] for row in rows if row["name"] == name}


def test_a_run_writes_config_vocabulary_metrics_order_and_checkpoints(tiny_training: Tiny) -> None:
    values = tiny_training(tensorboard=True)
    summary = _train(values)
    run = Path(values["output"])
    assert (summary.step, summary.resumed_from, summary.is_complete) == (6, 0, True)
    assert set(_metrics(values, "loss")) == {3, 6}
    terms = {name for name in summary.losses if name != "loss"}
    assert terms == {f"loss/{name}" for name in ("contrast", "hierarchy", "match", "masked_text", "masked_image")}
    assert summary.losses["loss"] == pytest.approx(sum(summary.losses[term] for term in terms), rel=1e-5)
    order = [json.loads(line) for line in (run / "order.jsonl").read_text().splitlines()]
    assert [row["step"] for row in order] == [1, 2, 3, 4, 5, 6]
    assert len({row["digest"] for row in order}) == 6
    stored = yaml.safe_load((run / "config.yaml").read_text())
    vocabulary = (run / "tokenizer" / "vocab.txt").read_text().splitlines()
    assert stored["family"]["text"]["vocab_size"] == len(vocabulary)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "step-00000002",
        "step-00000004",
        "step-00000006",
    ]
    assert any((run / "tensorboard").iterdir())


@pytest.mark.parametrize("stop_after", [1, 2, 5])
def test_an_interrupted_run_ends_as_if_nothing_had_happened(
    tmp_path: Path, tiny_training: Tiny, stop_after: int
) -> None:
    whole = tiny_training(output=str(tmp_path / "whole"))
    _train(whole)
    halves = tiny_training(output=str(tmp_path / "halves"))
    with pytest.raises(Interrupted):
        _train(halves, stop_after=stop_after)
    summary = _train(halves)
    assert summary.resumed_from == stop_after // 2 * 2
    assert _metrics(halves, "loss") == _metrics(whole, "loss")
    ended, expected = (read_tensors(find_checkpoint(tmp_path / name).weights) for name in ("halves", "whole"))
    assert all(ended[name].equal(value) for name, value in expected.items())


def test_a_finished_run_has_nothing_left_to_do(tiny_training: Tiny) -> None:
    values = tiny_training()
    _train(values)
    before = (Path(values["output"]) / "metrics.jsonl").read_bytes()
    summary = _train(values)
    assert (summary.resumed_from, summary.step, dict(summary.losses)) == (6, 6, {})
    assert (Path(values["output"]) / "metrics.jsonl").read_bytes() == before


def test_another_config_is_refused_naming_the_keys(tiny_training: Tiny) -> None:
    values = tiny_training()
    with pytest.raises(Interrupted):
        _train(values, stop_after=3)
    schedule = {**values["schedule"], "lr": 0.5}
    with pytest.raises(ConfigError, match=r"schedule.lr \(0.001 → 0.5\), seed \(3 → 4\)"):
        _train({**values, "seed": 4, "schedule": schedule})


def test_what_changes_no_batch_may_change(tmp_path: Path, tiny_training: Tiny) -> None:
    values = tiny_training()
    with pytest.raises(Interrupted):
        _train(values, stop_after=3)
    (tmp_path / "world").rename(tmp_path / "moved")
    moved = {"world": {"dataset": str(tmp_path / "moved"), "concepts": "concepts-0badcafe"}}
    changes = {"streams": moved, "loader_workers": 1, "log_every": 1, "checkpoint_every": 5, "keep": 1}
    assert _train({**values, **changes}).is_complete


def test_another_dataset_under_the_same_path_is_refused(tiny_training: Tiny, world: Callable[..., Dataset]) -> None:
    values = tiny_training()
    with pytest.raises(Interrupted):
        _train(values, stop_after=3)
    values["streams"]["world"]["dataset"] = str(world("other", pictures=12).path)
    with pytest.raises(ConfigError, match=r"streams\.world is the dataset or view"):
        _train(values)


def test_leaving_out_the_concepts_of_a_started_run_is_refused(tiny_training: Tiny) -> None:
    values = tiny_training()
    with pytest.raises(Interrupted):
        _train(values, stop_after=3)
    values["streams"]["world"]["concepts"] = None
    with pytest.raises(DatasetError, match="concepts-0badcafe"):
        _train(values)


def test_a_loss_that_is_no_number_stops_the_run_before_it_is_saved(tiny_training: Tiny) -> None:
    values = tiny_training(schedule={"kind": "cosine", "lr": 1e30, "warmup_steps": 0}, steps=20, checkpoint_every=1)
    with pytest.raises(NonFiniteLossError, match=r"step \d+: loss.*world-"):
        _train(values)
    weights = read_tensors(find_checkpoint(Path(values["output"])).weights)
    assert all(bool(value.isfinite().all()) for value in weights.values() if value.is_floating_point())


def test_fine_tuning_starts_from_the_weights_and_the_vocabulary_of_a_run(
    tmp_path: Path, tiny_training: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    first = tiny_training(output=str(tmp_path / "first"))
    _train(first)
    parts = {"hierarchy": None, "masked_text": None, "masked_image": None}
    family = {**first["family"], **parts, "contrast": {**first["family"]["contrast"], "targets": "identity"}}
    second = tiny_training(
        output=str(tmp_path / "second"), init=first["output"], tokenizer={}, family=family, task={"kind": "retrieval"}
    )
    with caplog.at_level("INFO"):
        summary = _train(second)
    assert set(summary.losses) == {"loss", "loss/contrast", "loss/match"}
    assert "init from" in caplog.text
    vocabularies = [(tmp_path / name / "tokenizer" / "vocab.txt").read_bytes() for name in ("first", "second")]
    assert vocabularies[0] == vocabularies[1]


def test_without_any_vocabulary_the_message_says_where_one_could_come_from(tiny_training: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.train_size"):
        _train(tiny_training(tokenizer={}))


def test_an_output_that_cannot_be_written_is_one_sentence(tmp_path: Path, tiny_training: Tiny) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be written"):
        _train(tiny_training(output=str(tmp_path / "file" / "run")))


def test_a_wrong_key_of_the_family_is_named(tiny_training: Tiny) -> None:
    values = tiny_training()
    values["family"] = {**values["family"], "imagesize": 32}
    with pytest.raises(OstrakaError, match="image_size"):
        _train(values)


def test_a_plan_builds_and_writes_nothing(tiny_training: Tiny) -> None:
    values = tiny_training()
    text = plan(TrainConfig.model_validate(values))
    assert "6 steps of 8 over 36 items" in text
    assert not Path(values["output"]).exists()


def test_training_lowers_every_loss(tiny_training: Tiny) -> None:
    values = tiny_training(steps=120, checkpoint_every=1000, log_every=20, augment={"flip": 0, "scale": [0.8, 1.0]})
    summary = _train(values)
    for name, last in summary.losses.items():
        first = _metrics(values, name)[20]
        assert last < first, f"{name} went from {first:.3f} to {last:.3f}"


def test_a_mixture_in_micro_batches_trains_and_resumes(tiny_training: Tiny, world: Callable[..., Dataset]) -> None:
    other = world("other", pictures=12, captions=1)
    values = tiny_training(micro_batches=2, log_every=1)
    values["streams"]["other"] = {"dataset": str(other.path), "concepts": "concepts", "weight": 9}
    values["streams"]["world"]["weight"] = 1
    with pytest.raises(Interrupted):
        _train(values, stop_after=4)
    before = _metrics(values, "loss")
    summary = _train(values)
    assert (summary.resumed_from, summary.is_complete) == (4, True)
    after = _metrics(values, "loss")
    assert set(after) == {1, 2, 3, 4, 5, 6}
    assert {step: after[step] for step in before} == before
