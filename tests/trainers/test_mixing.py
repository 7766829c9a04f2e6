"""A run over views, with batches by tokens, and with another batch size than it began with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.errors import ConfigError
from shards.reader import Dataset
from trainers.assembly import open_streams
from trainers.config import TrainConfig
from trainers.lineage import lineage
from trainers.mixing import lay_order
from trainers.tasks import load_task
from trainers.trainer import train

Tiny = Callable[..., dict[str, Any]]


class Interrupted(Exception):
    """Stands for whatever ends a process between two steps."""


def run(values: dict[str, Any], *, stop_after: int | None = None) -> None:
    def interrupt(done: int, steps: int, interval: object) -> None:
        if done == stop_after:
            raise Interrupted

    train(TrainConfig.model_validate(values), on_step=interrupt, lines=False)


def digests(values: dict[str, Any]) -> list[int]:
    return [json.loads(line)["digest"] for line in (Path(values["output"]) / "order.jsonl").read_text().splitlines()]


def test_a_run_goes_on_with_another_batch_size_at_the_very_sample(tiny_training: Tiny) -> None:
    values = tiny_training()
    size = values["batch_size"]
    with pytest.raises(Interrupted):
        run(values, stop_after=3)
    seen = [line.name for step in (1, 2) for line in lineage(values["output"], step)]
    run({**values, "batch_size": size // 2})
    assert [line.name for step in (1, 2) for line in lineage(values["output"], step)] == seen
    rest = [line for step in (3, 4) for line in lineage(values["output"], step)]
    assert len(rest) == size
    config = TrainConfig.model_validate(values)
    streams = open_streams(config)
    order = lay_order(config, streams, load_task(config.task))
    assert order.steps_per_epoch > 2
    third = order.batch(2)
    assert [(line.key, line.annotation) for line in rest] == [
        (streams.datasets["world"].index(place.shard).keys[row], number)
        for place in third
        for row, number in [streams.datasets["world"].index(place.shard).locate(place.item)]
    ]


def test_a_run_over_a_view_in_batches_by_tokens_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, tiny_training: Tiny
) -> None:
    def settings(output: str) -> dict[str, Any]:
        values = tiny_training(output=str(tmp_path / output))
        values["streams"]["world"]["where"] = "text_length > 0 and width > 0"
        return values | {"batch_tokens": 120, "batch_parts": 2, "micro_batches": 2}

    run(settings("whole"))
    with pytest.raises(Interrupted):
        run(settings("halves"), stop_after=3)
    run(settings("halves"))
    assert digests(settings("halves")) == digests(settings("whole"))
    assert len(set(digests(settings("whole")))) == 6
    assert lineage(tmp_path / "whole", 2) == lineage(tmp_path / "halves", 2)
    with pytest.raises(ConfigError, match="batch_tokens"):
        run(settings("halves") | {"batch_tokens": 130})


def test_a_view_that_shows_nothing_ends_the_run_before_it_begins(tiny_training: Tiny) -> None:
    values = tiny_training()
    values["streams"]["world"]["where"] = "width > 100000"
    with pytest.raises(ConfigError, match="nothing of it is left"):
        run(values)


def test_batches_by_tokens_need_one_lane(tiny_training: Tiny) -> None:
    with pytest.raises(ValueError, match="batch_tokens or lanes"):
        TrainConfig.model_validate(tiny_training(batch_tokens=64, lanes=2))


def test_datasets_are_mixed_as_the_config_says(tiny_training: Tiny, world: Callable[..., Dataset]) -> None:
    values = tiny_training()
    other = {"dataset": str(world("other", pictures=9).path), "concepts": "concepts"}
    values["streams"]["other"] = other | {"epochs": 2, "where": "width > 0"}
    values["mixture"] = {"temperature": 2, "until": "all", "changes": [{"step": 4, "weights": {"other": 1}}]}
    values["mixture"]["changes"].append({"step": 6, "weights": {"other": 1, "world": 3}})
    config = TrainConfig.model_validate(values)
    order = lay_order(config, open_streams(config), load_task(config.task))
    weights = order.state(0).weights
    assert weights["world"] / weights["other"] == pytest.approx((36 / (2 * 18)) ** 0.5)
    assert {address.source for step in (4, 5) for address in order.batch(step)} == {"other"}
    assert sum(address.source == "world" for address in order.batch(6)) == values["batch_size"] * 3 // 4
    visited = [address for step in range(order.steps_per_epoch) for address in order.batch(step)]
    for name, epochs in (("world", 1), ("other", 2)):
        assert max(address.epoch for address in visited if address.source == name) >= epochs - 1
        assert sum(address.source == name for address in visited) >= 36
