"""The two tasks over captions: what an example holds, and whose negatives are whose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from model.examples import Paired
from shards.address import Address
from shards.errors import ConfigError, DatasetError
from shards.reader import Dataset
from shards.records import Origin, Record
from shards.stream import Item
from trainers.augment import EvalView
from trainers.tasks import load_task

RNG = np.random.default_rng(0)


def _item(record: Record, annotation: int | None, concepts: list[str] | None = None) -> Item:
    address = Address(source="world", shard=0, item=0, epoch=0, position=0)
    sidecars = {"concepts": {"phrases": concepts}} if concepts is not None else {}
    return Item(address=address, record=record, annotation=annotation, sidecars=sidecars)


def test_pretraining_pairs_the_picture_with_the_caption_whose_turn_it_is(world: Callable[..., Dataset]) -> None:
    record = world(pictures=4).record(0, 1)
    example = load_task({"kind": "pretraining"}).example(_item(record, 1, ["disc", "red"]), EvalView(16), RNG)
    assert isinstance(example, Paired)
    assert example.text == record.annotations[1].text  # type: ignore[union-attr]
    assert example.concepts == ("disc", "red")
    assert example.images[0].shape == (3, 16, 16)
    assert example.key == f"{record.key}#1"
    assert example.identity == -1


def test_retrieval_gives_all_captions_of_a_picture_one_identity(world: Callable[..., Dataset]) -> None:
    dataset = world(pictures=4)
    task = load_task({"kind": "retrieval"})
    records = list(dataset.records())
    identities = [
        [task.example(_item(record, number), EvalView(8), RNG).identity for number in range(2)]  # type: ignore[attr-defined]
        for record in records
    ]
    assert all(first == second >= 0 for first, second in identities)
    assert len({first for first, _ in identities}) == len(records)


def test_a_record_without_captions_is_an_error_that_names_it(world: Callable[..., Dataset]) -> None:
    record = Record(key="bare-1", origin=Origin(dataset="d", split="s", id="1"), media=(), annotations=())
    with pytest.raises(DatasetError, match="'bare-1' has no annotations"):
        load_task({"kind": "pretraining"}).example(_item(record, 0), lambda *_, **__: None, RNG)  # type: ignore[arg-type, return-value]


def test_a_misspelt_task_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'retrieval'"):
        load_task({"kind": "retreival"})
    with pytest.raises(ConfigError, match=r"unknown key 'task\.temperature'"):
        load_task({"kind": "retrieval", "temperature": 1})
