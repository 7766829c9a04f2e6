"""Questions, entailment and statements about two pictures: from records through training to scores and predictions."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from shards.manifest import merge
from shards.reader import Dataset, open_dataset
from shards.records import Annotation, Answer, Caption, Entailment, Media, Origin, Question, Record, Statement
from shards.storage import open_storage
from shards.writer import ShardWriter
from trainers.checkpoint import find_checkpoint
from trainers.config import EvaluateConfig, TrainConfig
from trainers.evaluation import evaluate, plan
from trainers.ranking_evaluator import RankingScores
from trainers.trainer import train

COLOURS = ("red", "green", "blue", "white")
SHAPES = ("square", "disc")
SIZES: dict[str, Any] = {
    "kind": "vicha",
    "image_size": 16,
    "patch_size": 8,
    "vision": {"width": 32, "depth": 2, "heads": 2},
    "text": {
        "width": 32,
        "layers": 3,
        "fusion_layer": 1,
        "heads": 2,
        "mlp_width": 64,
        "max_positions": 32,
        "dropout": 0.0,
    },
    "projection": 16,
    "initialisation": "xavier",
    "concepts": None,
}
PRETRAINING: dict[str, Any] = {
    "contrast": {"queue_size": 16},
    "hierarchy": {"layers": 1},
    "masked_image": {"mode": "uni_cross_modal", "decoder_width": 32, "decoder_layers": 1, "decoder_heads": 2},
}


def _picture(colour: str, shape: str) -> bytes:
    image = Image.new("RGB", (16, 16), "black")
    draw = ImageDraw.Draw(image)
    (draw.rectangle if shape == "square" else draw.ellipse)((2, 2, 13, 13), fill=colour)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=95, subsampling=0)
    return data.getvalue()


def _scenes() -> Iterator[tuple[str, str]]:
    return itertools.product(COLOURS, SHAPES)


def _captions() -> Iterator[tuple[list[tuple[str, str]], list[Annotation]]]:
    for colour, shape in _scenes():
        yield [(colour, shape)], [Caption(text=f"a {colour} {shape}")]


def _questions(*, told: bool = True) -> Iterator[tuple[list[tuple[str, str]], list[Annotation]]]:
    for number, (colour, shape) in enumerate(_scenes()):
        asked = {"what colour is it": (colour, "gray"), "what shape is it": (shape, "thing")}
        yield (
            [(colour, shape)],
            [
                Question(
                    id=str(10 * number + place),
                    question=question,
                    answers=(Answer(text=right, weight=0.9), Answer(text=other, weight=0.1)) if told else (),
                )
                for place, (question, (right, other)) in enumerate(asked.items())
            ],
        )


def _hypotheses() -> Iterator[tuple[list[tuple[str, str]], list[Annotation]]]:
    for colour, shape in _scenes():
        other = COLOURS[(COLOURS.index(colour) + 1) % len(COLOURS)]
        yield (
            [(colour, shape)],
            [
                Entailment(hypothesis=f"it is {colour}", label="entailment"),
                Entailment(hypothesis=f"it is {other}", label="contradiction"),
                Entailment(hypothesis="it belongs to somebody", label="neutral"),
            ],
        )


def _statements() -> Iterator[tuple[list[tuple[str, str]], list[Annotation]]]:
    for left, right in itertools.product(COLOURS, COLOURS):
        pictures = [(left, "square"), (right, "disc")]
        yield pictures, [Statement(id=f"{left}-{right}", text="both have the same colour", label=left == right)]


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """Write records of one or two drawn pictures each."""

    def write(name: str, rows: Iterator[tuple[Sequence[tuple[str, str]], list[Annotation]]]) -> Dataset:
        storage = open_storage(tmp_path / name)
        keywords = {"dataset": name, "split": "train", "unit": "unit0", "unit_index": 0, "config_digest": "c0ffee"}
        with ShardWriter(storage, **keywords) as writer:  # type: ignore[arg-type]
            records = annotated = 0
            for number, (pictures, annotations) in enumerate(rows):
                members = ["jpg"] if len(pictures) == 1 else [f"{place}.jpg" for place in range(len(pictures))]
                writer.add(
                    Record(
                        key=f"{name}-{number:03d}",
                        origin=Origin(dataset=name, split="train", id=str(number)),
                        media=tuple(Media(member=each, kind="image", width=16, height=16) for each in members),
                        annotations=tuple(annotations),
                        payload={each: _picture(*shown) for each, shown in zip(members, pictures, strict=True)},
                    )
                )
                records, annotated = records + 1, annotated + len(annotations)
            writer.commit(raw_items=records, raw_annotations=annotated)
        merge(storage, name=name, split="train", config={}, config_digest="c0ffee", expected_units=["unit0"])
        return open_dataset(tmp_path / name)

    return write


def _train(output: Path, data: Dataset, *, task: str, family: Mapping[str, Any], **changes: Any) -> None:
    values: dict[str, Any] = {
        "output": str(output),
        "streams": {"data": {"dataset": data.path}},
        "task": {"kind": task},
        "family": SIZES | dict(family),
        "tokenizer": {"train_size": 200},
        "batch_size": 8,
        "steps": 60,
        "augment": {"scale": [0.9, 1.0], "flip": 0.0},
        "schedule": {"kind": "cosine", "lr": 3e-3, "warmup_steps": 5},
        "checkpoint_every": 100,
        "log_every": 20,
        "tensorboard": False,
    }
    train(TrainConfig.model_validate(values | changes), lines=False)


def _evaluate(run: Path, data: Dataset, **changes: Any) -> tuple[RankingScores, list[dict[str, Any]]]:
    values = {"checkpoint": str(run), "dataset": data.path, "output": str(run / "scores"), "batch_size": 5}
    config = EvaluateConfig.model_validate(values | changes)
    scores = evaluate(config)
    assert isinstance(scores, RankingScores)
    rows = [json.loads(line) for line in (run / "scores" / "predictions.jsonl").read_text().splitlines()]
    assert json.loads((run / "scores" / "scores.json").read_text()) == scores.to_json()
    return scores, rows


def test_questions_are_learned_and_answered_from_a_list_and_a_submission_is_written(
    tmp_path: Path, dataset: Callable[..., Dataset]
) -> None:
    data, run = dataset("questions", _questions()), tmp_path / "run"
    _train(run, data, task="vqa", family={"head": {"kind": "answers"}}, steps=150)
    scores, rows = _evaluate(run, data)
    assert scores.metrics["vqa_accuracy"] > scores.metrics["constant"] + 20
    assert scores.candidates == len(COLOURS) + len(SHAPES) + 2  # all that was said in training
    submission = json.loads((run / "scores" / "submission.json").read_text())
    assert [row["answer"] for row in submission] == [row["predicted"] for row in rows]
    assert {row["question_id"] for row in submission} == {int(row["id"]) for row in rows}
    listed = tmp_path / "answers.json"
    listed.write_text(json.dumps(["red", "disc"]))
    few, rows = _evaluate(run, data, task={"answers": str(listed)})
    assert few.candidates == 2
    assert {row["predicted"] for row in rows} <= {"red", "disc"}
    unknown, _ = _evaluate(run, dataset("untold", _questions(told=False)))
    assert unknown.metrics == {}


def test_entailment_is_learned_and_scored_by_class(tmp_path: Path, dataset: Callable[..., Dataset]) -> None:
    data, run = dataset("hypotheses", _hypotheses()), tmp_path / "run"
    _train(run, data, task="entailment", family={"head": {"kind": "classes"}}, steps=100)
    scores, rows = _evaluate(run, data)
    assert scores.metrics["constant"] == pytest.approx(100 / 3)
    assert scores.metrics["accuracy"] > 50
    assert scores.metrics["accuracy/neutral"] == 100
    assert len(rows) == 3 * len(COLOURS) * len(SHAPES)
    assert "ranks candidates" in plan(
        EvaluateConfig(checkpoint=str(run), dataset=data.path, output=str(tmp_path / "other"))
    )


def test_two_pictures_from_pretraining_through_text_assignment_to_statements(
    tmp_path: Path, dataset: Callable[..., Dataset]
) -> None:
    captions, statements = dataset("captions", _captions()), dataset("statements", _statements())
    first, second, third = (tmp_path / name for name in ("pretrained", "assigned", "compared"))
    _train(first, captions, task="pretraining", family=PRETRAINING, steps=4)
    inherit = {"tokenizer": {"name": str(first / "tokenizer" / "vocab.txt")}}
    _train(
        second, captions, task="pretraining", family={"head": {"kind": "assign"}}, steps=4, init=str(first), **inherit
    )
    _train(
        third, statements, task="statement", family={"head": {"kind": "compare"}}, steps=4, init=str(second), **inherit
    )
    scores, rows = _evaluate(third, statements)
    assert len(rows) == len(COLOURS) ** 2
    assert {row["predicted"] for row in rows} <= {"True", "False"}
    assert scores.metrics["constant"] == pytest.approx(75)
    assert find_checkpoint(third).step == 4
