"""Questions, entailment and statements about two pictures: from records through training to scores and predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from shards.errors import ConfigError, InputError
from shards.reader import Dataset
from shards.records import Question
from tests.askable import (
    COLOURS,
    PRETRAINING,
    SHAPES,
    SIZES,
    annotated,
    captions,
    hypotheses,
    questions,
    statements,
)
from trainers.checkpoint import find_checkpoint
from trainers.config import EvaluateConfig, TrainConfig
from trainers.evaluation import evaluate, plan
from trainers.ranking_evaluator import RankingScores
from trainers.trainer import train

__all__ = ["annotated"]


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
    tmp_path: Path, annotated: Callable[..., Dataset]
) -> None:
    data, run = annotated("questions", questions()), tmp_path / "run"
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
    unknown, _ = _evaluate(run, annotated("untold", questions(told=False)))
    assert unknown.metrics == {}
    assert "no score is possible" in unknown.table()
    assert len(json.loads((run / "scores" / "submission.json").read_text())) == unknown.examples


def test_of_a_split_that_is_half_told_the_told_half_is_scored(
    tmp_path: Path, annotated: Callable[..., Dataset]
) -> None:
    rows = [
        (pictures, [each if number % 2 else Question(id=each.id, question="what") for number, each in enumerate(asked)])
        for pictures, asked in questions()
    ]
    data, run = annotated("half", rows), tmp_path / "run"
    _train(run, annotated("questions", questions()), task="vqa", family={"head": {"kind": "answers"}}, steps=2)
    scores, _ = _evaluate(run, data)
    assert (scores.examples, scores.scored) == (16, 8)
    assert "over the 8 examples" in scores.table()
    assert scores.metrics["constant"] == pytest.approx(50)  # of the shapes alone: half of them are squares


def test_entailment_is_learned_and_scored_by_class(tmp_path: Path, annotated: Callable[..., Dataset]) -> None:
    data, run = annotated("hypotheses", hypotheses()), tmp_path / "run"
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
    tmp_path: Path, annotated: Callable[..., Dataset]
) -> None:
    told, compared = annotated("captions", captions()), annotated("statements", statements())
    first, second, third = (tmp_path / name for name in ("pretrained", "assigned", "compared"))
    _train(first, told, task="pretraining", family=PRETRAINING, steps=4)
    inherit = {"tokenizer": {"name": str(first / "tokenizer" / "vocab.txt")}}
    _train(second, told, task="pretraining", family={"head": {"kind": "assign"}}, steps=4, init=str(first), **inherit)
    _train(
        third, compared, task="statement", family={"head": {"kind": "compare"}}, steps=4, init=str(second), **inherit
    )
    scores, rows = _evaluate(third, compared)
    assert len(rows) == len(COLOURS) ** 2
    assert {row["predicted"] for row in rows} <= {"True", "False"}
    assert scores.metrics["constant"] == pytest.approx(75)
    assert find_checkpoint(third).step == 4


@pytest.mark.parametrize(
    ("task", "rows", "head"),
    [
        ("vqa", questions(told=False), {"kind": "answers"}),
        ("entailment", hypotheses(told=False), {"kind": "classes"}),
        ("statement", statements(told=False), {"kind": "compare"}),
    ],
)
def test_training_on_a_split_without_published_truth_is_refused_by_a_sentence_that_names_a_record(
    tmp_path: Path, annotated: Callable[..., Dataset], task: str, rows: Any, head: Mapping[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"untold-\d+.*: has no (answer|label) to learn"):
        _train(tmp_path / "run", annotated("untold", rows), task=task, family={"head": head})


@pytest.mark.parametrize("parts", [{"batch_size": 2}, {"batch_size": 8, "micro_batches": 4}])
def test_text_assignment_is_refused_before_it_begins_where_a_part_of_a_batch_has_no_two_other_pictures(
    tmp_path: Path, annotated: Callable[..., Dataset], parts: Mapping[str, int]
) -> None:
    data = annotated("captions", captions())
    with pytest.raises(ConfigError, match=rf"batch_size to {3 * parts.get('micro_batches', 1)} or more"):
        _train(tmp_path / "run", data, task="pretraining", family={"head": {"kind": "assign"}}, **parts)


def test_text_assignment_over_batches_of_tokens_names_a_part_that_is_too_small(
    tmp_path: Path, annotated: Callable[..., Dataset]
) -> None:
    data, tokens = annotated("captions", captions()), {"batch_tokens": 2, "batch_parts": 1}
    costs = {"fixed": 1.0, "per_character": 0.0}
    with pytest.raises(InputError, match="this part of it has 2"):
        _train(tmp_path / "run", data, task="pretraining", family={"head": {"kind": "assign"}}, tokens=costs, **tokens)
