"""Referring expressions: trained on as texts, evaluated by where the model looks and which proposed box that chooses."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from shards.config import validate
from shards.errors import ConfigError, DatasetError
from shards.manifest import merge
from shards.records import Grounding, Media, Origin, Record
from shards.stores import open_storage
from shards.writer import ShardWriter
from tests.worlds import TINY_FAMILY
from trainers.config import EvaluateConfig, TrainConfig
from trainers.evaluation import evaluate, plan
from trainers.grounding_evaluator import GroundingScores
from trainers.metrics.referring import intersection_over_union
from trainers.trainer import train

WIDTH, HEIGHT = 64, 32
COLOURS = ("red", "green", "blue", "yellow")
BOXES = ((4.0, 4.0, 28.0, 28.0), (36.0, 4.0, 60.0, 28.0))  # left and right
FAMILY = {
    **TINY_FAMILY,
    "contrast": {"queue_size": 16, "targets": "identity", "temperature_range": None},
    "hierarchy": None,
    "masked_text": None,
    "masked_image": None,
    "concepts": None,
}


def _record(number: int, left: str, right: str, split: str) -> Record:
    image = Image.new("RGB", (WIDTH, HEIGHT), "black")
    draw = ImageDraw.Draw(image)
    for box, colour in zip(BOXES, (left, right), strict=True):
        draw.rectangle(box, fill=colour)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90)
    expressions = tuple(
        Grounding(id=f"{number}-{place}", text=f"the {colour} square", box=box)
        for place, (colour, box) in enumerate(zip((left, right), BOXES, strict=True))
    )
    return Record(
        key=f"refs-{number:03d}",
        origin=Origin(dataset="refs", split=split, id=str(100 + number)),
        media=(Media(member="jpg", kind="image", width=WIDTH, height=HEIGHT),),
        annotations=expressions,
        payload={"jpg": data.getvalue()},
    )


@pytest.fixture
def expressions(tmp_path: Path) -> Path:
    """Pictures of two squares each, with an expression for either; two splits."""
    storage = open_storage(tmp_path / "refs")
    pairs = [(left, right) for left in COLOURS for right in COLOURS if left != right]
    with ShardWriter(
        storage, dataset="refs", split="train", unit="unit0", unit_index=0, config_digest="c0ffee"
    ) as writer:
        for number, (left, right) in enumerate(pairs):
            writer.add(_record(number, left, right, "testA" if number % 2 else "val"))
        writer.commit(raw_items=len(pairs), raw_annotations=2 * len(pairs))
    merge(storage, name="refs", split="train", config={}, config_digest="c0ffee", expected_units=["unit0"])
    return tmp_path / "refs"


@pytest.fixture
def trained(tmp_path: Path, expressions: Path) -> Path:
    config = {
        "output": str(tmp_path / "run"),
        "streams": {"refs": {"dataset": str(expressions)}},
        "task": {"kind": "grounding"},
        "family": FAMILY,
        "tokenizer": {"train_size": 200},
        "batch_size": 8,
        "steps": 1,
        "tensorboard": False,
    }
    train(validate(TrainConfig, config), lines=False)
    return tmp_path / "run"


@pytest.fixture
def evaluated(tmp_path: Path, expressions: Path, trained: Path) -> Callable[..., tuple[GroundingScores, list[Any]]]:
    """Evaluate the run with keys of the task; gives the scores and the rows of predictions.jsonl."""

    def run(**task: Any) -> tuple[GroundingScores, list[Any]]:
        output = tmp_path / "scores"
        config = EvaluateConfig(
            checkpoint=str(trained), dataset=str(expressions), output=str(output), task=task, batch_size=5
        )
        assert "maps expressions of 12 records" in plan(config)
        scores = evaluate(config)
        assert isinstance(scores, GroundingScores)
        assert json.loads((output / "scores.json").read_text())["metrics"] == scores.metrics
        return scores, [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]

    return run


@pytest.mark.parametrize("score", ["match", "contrast"])
def test_the_maps_peak_is_judged_by_split(evaluated: Any, score: str) -> None:
    scores, rows = evaluated(score=score)
    inside = {"val": [], "testA": [], "all": []}  # type: dict[str, list[bool]]
    for row in rows:
        (x, y), (x0, y0, width, height) = row["peak"], row["truth"]
        hit = x0 <= x < x0 + width and y0 <= y < y0 + height
        inside["testA" if int(row["key"][-3:]) % 2 else "val"].append(hit)
        inside["all"].append(hit)
    assert scores.metrics == {
        f"pointing/{split}": pytest.approx(100 * sum(hits) / len(hits)) for split, hits in inside.items()
    }
    assert scores.chance["pointing/all"] == pytest.approx(100 * 24 * 24 / (WIDTH * HEIGHT))
    assert "pointing/testA" in scores.table()


def test_the_map_chooses_among_proposed_boxes(tmp_path: Path, evaluated: Any) -> None:
    boxes = [[4, 4, 24, 24, 0.9], [36, 4, 24, 24, 0.8], [0, 0, 0, 9], [20, 2, 30, 30]]
    proposals = {str(100 + number): boxes for number in range(12)}
    (tmp_path / "dets.json").write_text(json.dumps(proposals))
    scores, rows = evaluated(proposals=str(tmp_path / "dets.json"))
    overlaps = [intersection_over_union(row["box"], row["truth"]) for row in rows if row["box"] is not None]
    assert scores.metrics["found/all"] == pytest.approx(100 * sum(value >= 0.5 for value in overlaps) / len(rows))
    assert scores.chance["found/all"] == pytest.approx(100 / 3)  # one of three boxes that have an area
    assert scores.metrics["largest/all"] == 0  # the largest lies between both squares
    assert "largest/all" in scores.table()
    assert overlaps


def test_proposals_of_other_pictures_or_of_no_form_are_refused(tmp_path: Path, evaluated: Any) -> None:
    (tmp_path / "dets.json").write_text(json.dumps({"7": [[0, 0, 5, 5]]}))
    with pytest.raises(ConfigError, match="none of its pictures"):
        evaluated(proposals=str(tmp_path / "dets.json"))
    (tmp_path / "dets.json").write_text("[1, 2]")
    with pytest.raises(ConfigError, match="cannot be read"):
        evaluated(proposals=str(tmp_path / "dets.json"))


def test_a_dataset_without_boxes_is_refused(tmp_path: Path, trained: Path, world: Any) -> None:
    world()
    config = EvaluateConfig(checkpoint=str(trained), dataset=str(tmp_path / "world"), output=str(tmp_path / "scores"))
    with pytest.raises(DatasetError, match="not one of the groundings"):
        evaluate(config)
