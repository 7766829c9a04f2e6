"""Lineage says what training logged, before and after it happened, and where a damaged record's slot went."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.cli import main
from shards.errors import ConfigError, InputError
from shards.reader import open_dataset
from shards.sidecar import write_sidecar
from tests.worlds import tiny_training, world
from trainers.augment import TrainView
from trainers.lineage import lineage
from trainers.meter import order_digest
from trainers.tasks.pretraining import Pretraining

__all__ = ["tiny_training", "world"]


def train(values: dict[str, Any], folder: Path) -> Path:
    preset = folder / "tiny.yaml"
    preset.write_text(json.dumps(values))
    assert main(["train", str(preset)]) == 0
    return Path(values["output"])


def test_every_step_of_a_run_is_named_as_it_was_trained(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]]
) -> None:
    run = train(tiny_training(), tmp_path)
    logged = {row["step"]: row["digest"] for row in map(json.loads, (run / "order.jsonl").read_text().splitlines())}
    assert len(logged) > 1
    for step, digest in logged.items():
        lines = lineage(run, step)
        assert f"{order_digest([line.name for line in lines], 0):016x}" == digest
        assert [line.slot for line in lines] == list(range(len(lines)))
        assert all(len(line.looks) == 1 and not line.reserve for line in lines)


def test_the_crops_are_those_that_training_draws(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    original = TrainView.draw

    def noted(self: TrainView, *words: Any) -> Any:
        look = original(self, *words)
        drawn.append(look)
        return look

    monkeypatch.setattr(TrainView, "draw", noted)
    values = tiny_training(loader_workers=0)
    run = train(values, tmp_path)
    trained = drawn.copy()
    size = values["batch_size"]
    for step in range(1, len(trained) // size + 1):
        told = [line.looks[0] for line in lineage(run, step, decode=step % 2 == 0)]
        assert told == trained[(step - 1) * size : step * size]


def test_the_verb_prints_a_line_or_an_object_per_slot(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    values = tiny_training()
    run = train(values, tmp_path)
    capsys.readouterr()
    assert main(["lineage", f"run={run}", "step=2"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert main(["lineage", f"run={run}", "step=2", "form=jsonl"]) == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(table) == len(objects) == values["batch_size"]
    for line, fields in zip(table, objects, strict=True):
        crop = fields["looks"][0]["crop"]
        assert fields["name"] in line
        assert f"crop {crop['width']}x{crop['height']}+{crop['left']}+{crop['top']}" in line


def test_a_damaged_picture_names_its_reserve(tmp_path: Path, tiny_training: Callable[..., dict[str, Any]]) -> None:
    values = tiny_training()
    run = train(values, tmp_path)
    stream = next(iter(values["streams"].values()))
    (victim, *_) = (line for line in lineage(run, 1) if not line.reserve)
    dataset = open_dataset(stream["dataset"])
    shard, row = dataset.locate(victim.key)
    tar = Path(stream["dataset"], "shards", f"{dataset.manifest[shard].name}.tar")
    extension, offset, size, _ = next(member for member in dataset.index(shard).members(row) if member[0] != "json")
    data = bytearray(tar.read_bytes())
    data[offset + size // 2] ^= 0xFF
    tar.write_bytes(data)
    changed = lineage(run, 1, decode=True)
    assert extension
    assert changed[victim.slot].reserve
    assert changed[victim.slot].key != victim.key


def test_the_log_shows_that_a_picture_was_damaged_in_training(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    values = tiny_training()
    stream = next(iter(values["streams"].values()))
    dataset = open_dataset(stream["dataset"])
    tar = Path(stream["dataset"], "shards", f"{dataset.manifest[0].name}.tar")
    whole = tar.read_bytes()
    _, offset, size, _ = next(member for member in dataset.index(0).members(2) if member[0] != "json")
    broken = bytearray(whole)
    broken[offset + size // 2] ^= 0xFF
    tar.write_bytes(broken)
    run = train(values, tmp_path)
    logged = {row["step"]: row["digest"] for row in map(json.loads, (run / "order.jsonl").read_text().splitlines())}
    replaced = 0
    for step, digest in logged.items():
        for place in (run, max((run / "checkpoints").glob("[0-9s]*"))):
            lines = lineage(place, step)
            assert f"{order_digest([line.name for line in lines], 0):016x}" == digest
            assert dataset.index(0).keys[2] not in {line.key for line in lines}
            replaced += sum(line.reserve for line in lines)
    assert replaced
    assert "another digest" not in capsys.readouterr().err
    tar.write_bytes(whole)
    for step in logged:
        lineage(run, step)
    assert "another digest" in capsys.readouterr().err


def test_the_wrong_caption_that_was_drawn_is_named(
    tmp_path: Path,
    tiny_training: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = tiny_training()
    stream = next(iter(values["streams"].values()))
    dataset = open_dataset(stream["dataset"])
    for number, entry in enumerate(dataset.manifest):
        keys = dataset.index(number).keys
        captions = [[f"no {key} at all", f"nor {key} again"] for key in keys]
        table = pa.table({"captions": captions, "scores": [[0.9, 0.8]] * len(keys)})
        write_sidecar(
            dataset.storage, column="negatives", digest8="0badf00d", shard=entry.name, keys=keys, values=table, card={}
        )
    stream["negatives"] = "negatives"
    shown: dict[str, str] = {}
    original = Pretraining.example

    def noted(self: Pretraining, *words: Any) -> Any:
        example = original(self, *words)
        shown[example.key] = example.wrong_text
        return example

    with monkeypatch.context() as watched:
        watched.setattr(Pretraining, "example", noted)
        run = train(values | {"steps": 4}, tmp_path)
    told = {line.name: line.wrong_text for step in range(1, 5) for line in lineage(run, step)}
    assert told == shown
    assert "" in told.values()
    assert len(set(told.values())) > 4
    capsys.readouterr()
    assert main(["lineage", f"run={run}", "step=1"]) == 0
    table = capsys.readouterr().out
    assert all(repr(line.wrong_text) in table for line in lineage(run, 1) if line.wrong_text)


def test_steps_that_are_none_and_a_folder_that_is_no_run_are_refused(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]]
) -> None:
    run = train(tiny_training(), tmp_path)
    with pytest.raises(ConfigError, match="counted from 1"):
        lineage(run, 0)
    with pytest.raises(ConfigError, match=r"the run has \d+ steps"):
        lineage(run, 10**6)
    in_epochs = train(tiny_training(steps=None, epochs=2, output=str(tmp_path / "epochs")), tmp_path)
    last = len((in_epochs / "order.jsonl").read_text().splitlines())
    assert lineage(in_epochs, last)
    with pytest.raises(ConfigError, match=f"the run has {last} steps"):
        lineage(in_epochs, last + 1)
    with pytest.raises(InputError, match="is not there"):
        lineage(tmp_path / "nothing", 1)
