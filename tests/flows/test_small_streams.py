"""Few, tiny and empty shards: every rank and worker gets its share or the run is refused; nobody waits for one who has nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.errors import ConfigError
from shards.manifest import merge
from shards.reader import Dataset, open_dataset
from shards.records import Reject
from shards.stores import open_storage
from shards.writer import ShardWriter
from tests.launches import launch
from trainers.config import TrainConfig
from trainers.trainer import plan, train


def with_an_empty_unit(source: Dataset, folder: Path) -> Dataset:
    """The records of a dataset again, one shard each, and between them a unit of which every raw item was rejected."""
    storage = open_storage(folder)
    records = list(source.records())
    units = [*records[:2], None, *records[2:]]
    for number, record in enumerate(units):
        with ShardWriter(
            storage, dataset="small", split="train", unit=f"unit{number}", unit_index=number, config_digest="c0ffee"
        ) as writer:
            if record is None:
                writer.reject(Reject(id="lost", reason="missing_media", detail="gone"))
            else:
                writer.add(record)
            writer.commit(raw_items=1, raw_annotations=len(record.annotations) if record is not None else 0)
    names = [f"unit{number}" for number in range(len(units))]
    merge(storage, name="small", split="train", config={}, config_digest="c0ffee", expected_units=names)
    return open_dataset(folder)


def steps_of(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "order.jsonl").read_text().splitlines()]


def test_two_ranks_of_two_workers_share_one_shard_or_many_of_one_record_and_an_empty_one(
    tmp_path: Path, world: Callable[..., Dataset], tiny_training: Callable[..., dict[str, Any]]
) -> None:
    one_shard = world("one_shard", pictures=5, parts=1)
    tiny = with_an_empty_unit(one_shard, tmp_path / "tiny")
    assert len(one_shard.manifest) == 1
    assert max(tiny.shard_sizes()) == 1
    streams = {"one": {"dataset": one_shard.path}, "tiny": {"dataset": tiny.path}}
    changes = {"streams": streams, "steps": None, "epochs": 2, "batch_size": 4}
    by_two = tiny_training(output=str(tmp_path / "two"), loader_workers=2, **changes)
    done = launch("train", by_two, preset=tmp_path / "two.yaml", ranks=2)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = tiny_training(output=str(tmp_path / "alone"), **changes)
    train(TrainConfig.model_validate(alone), lines=False)
    assert (tmp_path / "two" / "order.jsonl").read_text() == (tmp_path / "alone" / "order.jsonl").read_text()


def test_the_length_of_an_epoch_is_said_before_it_starts_and_kept(
    tmp_path: Path, world: Callable[..., Dataset], tiny_training: Callable[..., dict[str, Any]]
) -> None:
    dataset = world("small", pictures=7, parts=7)
    values = tiny_training(streams={"small": {"dataset": dataset.path}}, steps=None, epochs=3, batch_size=4)
    config = TrainConfig.model_validate(values)
    assert "9 steps of 4 over 14 items (3 steps per epoch, 3.0 epochs)" in plan(config)
    assert train(config, lines=False).steps == 9
    assert steps_of(tmp_path / "run") == list(range(1, 10))


def test_a_dataset_smaller_than_a_batch_is_refused_on_every_rank_at_once(
    tmp_path: Path, world: Callable[..., Dataset], tiny_training: Callable[..., dict[str, Any]]
) -> None:
    dataset = world("small", pictures=3, captions=1)
    values = tiny_training(streams={"small": {"dataset": dataset.path}}, batch_size=4)
    with pytest.raises(ConfigError, match="fewer than one batch"):
        train(TrainConfig.model_validate(values), lines=False)
    done = launch("train", values, preset=tmp_path / "small.yaml", ranks=2)
    assert done.returncode != 0
    assert done.stderr.count("fewer than one batch needs (4); lower batch_size") == 2
