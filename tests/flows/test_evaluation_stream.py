"""Evaluation by several processes: every record once over all ranks, and to the last bit the scores and predictions of one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.reader import Dataset
from shards.stream import RecordStream, Stream, source_of
from tests.launches import launch
from trainers.config import TrainConfig
from trainers.trainer import train


@pytest.fixture
def exam(tmp_path: Path, tiny_training: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A run of a few steps, and how it is evaluated: 18 pictures in batches of 7 are three chunks for two ranks."""
    values = tiny_training()
    train(TrainConfig.model_validate(values), lines=False)
    dataset = values["streams"]["world"]["dataset"]
    return {"checkpoint": values["output"], "dataset": dataset, "k_test": 5, "batch_size": 7, "device": "cpu"}


def test_two_processes_score_and_predict_what_one_does_and_only_the_first_speaks(
    tmp_path: Path, exam: dict[str, Any]
) -> None:
    outputs = {ranks: tmp_path / f"by{ranks}" for ranks in (1, 2)}
    tables = {}
    for ranks, output in outputs.items():
        values = {**exam, "output": str(output), "state_bytes": {1: 4 << 30, 2: 0}[ranks]}
        done = launch("evaluate", values, preset=tmp_path / "exam.yaml", ranks=ranks)
        assert done.returncode == 0, done.stderr[-3000:]
        tables[ranks] = done.stdout
    one, two = (json.loads((output / "scores.json").read_text()) for output in outputs.values())
    assert one.keys() == two.keys()
    assert {name: one[name] for name in one if name != "seconds"} == {
        name: two[name] for name in two if name != "seconds"
    }
    predictions = [(output / "predictions.jsonl").read_bytes() for output in outputs.values()]
    assert predictions[0] == predictions[1]
    queries = Counter(
        (row["direction"], row["query"]["key"], row["query"].get("annotation"))
        for row in map(json.loads, predictions[1].splitlines())
    )
    assert len(queries) == 18 + 36
    assert set(queries.values()) == {1}
    assert tables[1] == tables[2]


def test_a_damaged_picture_in_one_ranks_share_stops_both_with_its_name(tmp_path: Path, exam: dict[str, Any]) -> None:
    shard = sorted(Path(exam["dataset"]).glob("shards/*.tar"))[1]
    data = bytearray(shard.read_bytes())
    data[data.index(b"\xff\xd8\xff") + 200] ^= 0xFF  # picture 9, of the second chunk: rank 1 reads it
    shard.write_bytes(data)
    done = launch("evaluate", {**exam, "output": str(tmp_path / "scores")}, preset=tmp_path / "exam.yaml", ranks=2)
    assert done.returncode != 0
    assert "world-009" in done.stderr
    assert "rank 1 stopped the run" in done.stderr
    assert not (tmp_path / "scores" / "scores.json").exists()


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 7), (2, 8), (6, 6), (5, 20), (24, 24)])
def test_a_stream_for_evaluation_gives_every_record_once_over_all_ranks_also_where_some_have_none(
    world: Callable[..., Dataset], world_size: int, batch_size: int
) -> None:
    dataset = world(parts=5)
    stream = Stream(
        {"world": source_of(dataset, "records")}, batch_size=batch_size, seed=0, drop_last=False, shuffle=False
    )
    records = RecordStream(stream, {"world": dataset}, count="records")
    keys = [
        records.fetch(address).record.key
        for step in range(stream.steps_per_epoch)
        for rank in range(world_size)
        for address in stream.slots(step, rank, world_size)
    ]
    assert keys == [record.key for record in dataset.records()]
