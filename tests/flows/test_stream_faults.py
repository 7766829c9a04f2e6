"""Faults while reading: named, counted, their slots refilled, all other slots unchanged; past the budget every rank stops."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from shards.errors import BudgetError
from shards.reader import Dataset, open_dataset
from shards.stream import Damage, DamageBudget, RecordStream, Stream, source_of
from tests.launches import launch
from tests.worlds import TINY_FAMILY
from trainers.assembly import build_model
from trainers.augment import AugmentConfig, TrainView
from trainers.checkpoint import find_checkpoint
from trainers.config import TrainConfig
from trainers.loader import Loader
from trainers.tasks import load_task
from trainers.trainer import train

EVERYTHING = DamageBudget(share=1.0)
BATCH = 6

Break = Callable[[Dataset], set[str]]
Slot = tuple[str, tuple[bytes, ...]]  # the item's name, and all that was made of it


def shard_file(dataset: Dataset, shard: int) -> Path:
    return Path(dataset.path) / "shards" / f"{dataset.manifest[shard].name}.tar"


def flip(dataset: Dataset, shard: int, row: int, extension: str) -> str:
    """Turn one bit in the middle of a member; returns the record's key."""
    offset, size = next(place[1:3] for place in dataset.index(shard).members(row) if place[0] == extension)
    path = shard_file(dataset, shard)
    data = bytearray(path.read_bytes())
    data[offset + size // 2] ^= 0x10
    path.write_bytes(data)
    return dataset.index(shard).keys[row]


def in_a_header(dataset: Dataset) -> set[str]:
    return {flip(dataset, 0, 3, "json")}


def in_a_payload(dataset: Dataset) -> set[str]:
    return {flip(dataset, 2, 1, "jpg")}


def cut(dataset: Dataset) -> set[str]:
    """Leave a shard without its last third."""
    path = shard_file(dataset, 1)
    kept = path.stat().st_size * 2 // 3
    os.truncate(path, kept)
    index = dataset.index(1)
    # The text member beside a picture is for other readers: nobody here misses it.
    ends = [
        max(offset + size for name, offset, size, _ in index.members(row) if name != "txt") for row in range(len(index))
    ]
    return {key for key, end in zip(index.keys, ends, strict=True) if end > kept}


def lost(dataset: Dataset) -> set[str]:
    shard_file(dataset, 0).unlink()
    return set(dataset.index(0).keys)


def swapped(dataset: Dataset) -> set[str]:
    """Exchange two of four shards."""
    first, second = shard_file(dataset, 0), shard_file(dataset, 1)
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    return {key for shard in range(2) for key in dataset.index(shard).keys}


def shifted(dataset: Dataset) -> set[str]:
    """Put a block into the middle of a shard: the records behind it are no longer where the index says."""
    offset = dataset.index(1).members(2)[0][1]
    path = shard_file(dataset, 1)
    data = path.read_bytes()
    path.write_bytes(data[: offset - 512] + bytes(512) + data[offset - 512 : -512])
    return set(dataset.index(1).keys[2:])


SURVIVED: Sequence[Break] = (in_a_header, in_a_payload, cut, lost, swapped, shifted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """What one rank's loader made of an epoch."""

    slots: list[Slot]
    damages: tuple[Damage, ...]


def load(
    dataset: Path, vocabulary: Path, *, workers: int = 0, budget: DamageBudget = EVERYTHING, steps: int = 6
) -> Epoch:
    opened = open_dataset(dataset)
    task = load_task({"kind": "pretraining"})
    stream = Stream({"world": source_of(opened, task.count)}, batch_size=BATCH, seed=11)
    model = build_model({**TINY_FAMILY, "concepts": None}, vocabulary, seed=0)
    loader = Loader(
        RecordStream(stream, {"world": opened}, count=task.count, budget=budget),
        task=task,
        processor=model.processor,
        view=TrainView(model.processor.view.image_size, AugmentConfig()),
        micro_batches=BATCH,  # one example each: what is made of a slot does not depend on its neighbours
        workers=workers,
    )
    slots = [
        (name, tuple(value.numpy().tobytes() for value in tensors(batch)))
        for step in loader.steps(0, steps)
        for name, batch in zip(step.names, step.micro_batches, strict=True)
    ]
    return Epoch(slots=slots, damages=loader.damages)


def tensors(batch: Any) -> list[torch.Tensor]:
    return [getattr(batch, name) for name in ("pixels", "text_ids", "masked_ids", "patch_noise")]


@pytest.fixture
def vocabulary(tmp_path: Path, world: Callable[..., Dataset], tiny_training: Callable[..., dict[str, Any]]) -> Path:
    """The words of a world of four shards, as a run of one step leaves them."""
    world(parts=4)
    train(TrainConfig.model_validate(tiny_training(output=str(tmp_path / "words"), steps=1)), lines=False)
    return tmp_path / "words" / "tokenizer" / "vocab.txt"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("breaks", SURVIVED, ids=lambda breaks: breaks.__name__)
def test_damage_is_named_with_shard_and_key_its_slots_refilled_and_no_other_slot_changed(
    tmp_path: Path, vocabulary: Path, breaks: Break, workers: int
) -> None:
    world = tmp_path / "world"
    sound = load(world, vocabulary)
    assert not sound.damages
    dataset = open_dataset(world)
    broken = breaks(dataset)
    hurt = load(world, vocabulary, workers=workers)
    assert len(hurt.slots) == len(sound.slots) == 36  # all captions of all pictures: every damaged record is met
    for (before, made), (after, remade) in zip(sound.slots, hurt.slots, strict=True):
        if before.split("#")[0] in broken:
            assert after.split("#")[0] not in broken
        else:
            assert (after, remade) == (before, made)
    shards = {key: entry.name for n, entry in enumerate(dataset.manifest) for key in dataset.index(n).keys}
    assert {(each.key, each.shard) for each in hurt.damages} == {(key, shards[key]) for key in broken}
    assert len(hurt.damages) == len(broken)
    assert all(each.key in each.what and each.shard in each.what for each in hurt.damages)
    assert hurt.slots == load(world, vocabulary).slots  # reserves, too, are a matter of the order alone


def test_a_flip_outside_of_every_member_touches_nothing(tmp_path: Path, vocabulary: Path) -> None:
    world = tmp_path / "world"
    sound = load(world, vocabulary)
    dataset = open_dataset(world)
    offset = dataset.index(0).members(2)[0][1]
    path = shard_file(dataset, 0)
    data = bytearray(path.read_bytes())
    data[offset - 500] ^= 0x10  # in the name that the tar gives the member: reading goes by the index
    path.write_bytes(data)
    assert load(world, vocabulary) == sound


@pytest.mark.parametrize("workers", [0, 2])
def test_two_shards_exchanged_end_the_run_in_one_sentence(tmp_path: Path, vocabulary: Path, workers: int) -> None:
    world = tmp_path / "world"
    dataset = open_dataset(world)
    keys = swapped(dataset)
    with pytest.raises(BudgetError, match="verify") as caught:
        load(world, vocabulary, workers=workers, budget=DamageBudget(share=0, count=3))
    assert "4 records are damaged and the budget allows 3" in str(caught.value)
    assert any(key in str(caught.value) for key in keys)


def test_a_record_that_reads_but_does_not_decode_is_damage_too(
    tmp_path: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = load(tmp_path / "world", vocabulary)
    rotten = "world-007"
    original = Dataset.record

    def with_rot(self: Dataset, shard: int, row: int, *, payload: bool = True) -> Any:
        record = original(self, shard, row, payload=payload)
        if record.key != rotten:
            return record
        return replace(record, payload={"jpg": record.payload["jpg"][:40]})  # the checksum was that of a bad file

    monkeypatch.setattr(Dataset, "record", with_rot)
    hurt = load(tmp_path / "world", vocabulary)
    assert [each.key for each in hurt.damages] == [rotten]
    changed = [before[0] for before, after in zip(sound.slots, hurt.slots, strict=True) if before != after]
    assert changed
    assert {name.split("#")[0] for name in changed} == {rotten}


def order_and_losses(run: Path) -> tuple[str, list[Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row for row in rows if row["name"].startswith("loss") or row["name"] == "damaged"]
    return (run / "order.jsonl").read_text(), losses


def test_damage_is_counted_in_summary_metrics_and_checkpoint_also_across_a_resume(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]]
) -> None:
    values = tiny_training(steps=9, checkpoint_every=3, log_every=3, keep=9)
    dataset = open_dataset(tmp_path / "world")
    broken = {flip(dataset, 0, row, "jpg") for row in (1, 4)}
    whole = train(TrainConfig.model_validate(values), lines=False)
    assert {each.key for each in whole.damaged} == broken
    run = Path(values["output"])
    assert order_and_losses(run)[1][-1] == {"step": 9, "name": "damaged", "value": 2.0}
    parts = {**values, "output": str(tmp_path / "parts")}
    stop = lambda done, steps, interval: os.kill(os.getpid(), 15) if done == 3 else None  # noqa: E731
    first = train(TrainConfig.model_validate(parts), lines=False, on_step=stop)
    assert not first.is_complete
    second = train(TrainConfig.model_validate(parts), lines=False)
    assert second.resumed_from == first.step
    assert second.damaged == whole.damaged == find_checkpoint(run).state.damaged
    assert order_and_losses(tmp_path / "parts") == order_and_losses(run)


def test_a_worker_killed_in_the_middle_is_said_and_the_run_ends_as_if_nothing_had_happened(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    values = tiny_training(steps=12, loader_workers=1)
    train(TrainConfig.model_validate(values), lines=False)
    killed = {**values, "output": str(tmp_path / "killed")}

    def kill(done: int, steps: int, interval: object) -> None:
        if done == 4:
            (worker,) = torch.multiprocessing.active_children()
            worker.kill()
            worker.join()

    summary = train(TrainConfig.model_validate(killed), lines=False, on_step=kill)
    assert summary.is_complete
    assert any("worker was killed" in record.message for record in caplog.records)
    assert order_and_losses(tmp_path / "killed") == order_and_losses(Path(values["output"]))


def key_met_by_rank_1_first(dataset: Path, values: dict[str, Any]) -> tuple[str, int]:
    """A record that rank 1 of 2 meets, and rank 0 never does in the steps of the run; and the step, from 1."""
    opened = open_dataset(dataset)
    records = RecordStream(
        Stream({"world": source_of(opened, "annotations")}, batch_size=values["batch_size"], seed=values["seed"]),
        {"world": opened},
        count="annotations",
    )
    met: list[dict[str, int]] = [{}, {}]
    for rank in range(2):
        for step in range(values["steps"]):
            for address in records.stream.slots(step, rank, 2):
                met[rank].setdefault(records.read(address).record.key, step + 1)
    return next((key, step) for key, step in met[1].items() if key not in met[0] and step > 1)


def test_damage_that_one_rank_of_two_sees_is_counted_by_both_and_past_the_budget_both_stop_with_a_sentence(
    tmp_path: Path, tiny_training: Callable[..., dict[str, Any]]
) -> None:
    values = tiny_training(steps=3, log_every=1, checkpoint_every=3)
    key, step = key_met_by_rank_1_first(tmp_path / "world", values)
    dataset = open_dataset(tmp_path / "world")
    shard, row = dataset.locate(key)
    flip(dataset, shard, row, "jpg")

    tolerant = launch("train", {**values, "output": str(tmp_path / "tolerant")}, preset=tmp_path / "run.yaml", ranks=2)
    assert tolerant.returncode == 0, tolerant.stderr[-3000:]
    counted = [row["value"] for row in order_and_losses(tmp_path / "tolerant")[1] if row["name"] == "damaged"]
    assert counted == [float(done >= step) for done in (1, 2, 3)]
    assert f"1 damaged record was replaced by its reserves: {key}" in tolerant.stdout

    changes = {"output": str(tmp_path / "strict"), "damage": {"share": 0, "count": 0}}
    strict = launch("train", {**values, **changes}, preset=tmp_path / "run.yaml", ranks=2)
    assert strict.returncode != 0
    assert "1 records are damaged and the budget allows 0" in strict.stderr
    assert "rank 1 stopped the run: 1 records are damaged" in strict.stderr
    assert key in strict.stderr
