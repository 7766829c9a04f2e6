"""The fine-tuning tasks on the real excerpts under $OSTRAKA_DATA: from the raw files to a step, scores and predictions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units
from shards.reader import Dataset, open_dataset
from trainers.config import EvaluateConfig, TrainConfig
from trainers.evaluation import evaluate
from trainers.ranking_evaluator import RankingScores
from trainers.trainer import train

DATA = Path(os.environ.get("OSTRAKA_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
SIZES: dict[str, Any] = {
    "kind": "vicha",
    "image_size": 32,
    "patch_size": 16,
    "vision": {"width": 16, "depth": 1, "heads": 2},
    "text": {"width": 16, "layers": 2, "fusion_layer": 1, "heads": 2, "mlp_width": 32, "max_positions": 64},
    "concepts": None,
}


def _real(*parts: str) -> Path:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not here; set OSTRAKA_DATA")
    return path


def _placeholder(path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (9, 99, 9)).save(path)


def _converted(tmp_path: Path, source: dict[str, Any]) -> Dataset:
    output = tmp_path / "dataset"
    config = ConvertConfig.model_validate({"source": source, "output": str(output), "reject_share": 1.0})
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    finish(config, units)
    return open_dataset(output)


def _run(tmp_path: Path, data: Dataset, *, task: str, head: str) -> tuple[RankingScores, list[dict[str, Any]]]:
    values: dict[str, Any] = {
        "output": str(tmp_path / "run"),
        "streams": {"data": {"dataset": data.path}},
        "task": {"kind": task},
        "family": SIZES | {"head": {"kind": head}},
        "tokenizer": {"train_size": 500},
        "batch_size": 4,
        "steps": 2,
        "tensorboard": False,
    }
    summary = train(TrainConfig.model_validate(values), lines=False)
    assert summary.losses["loss"] > 0
    output = tmp_path / "scores"
    scores = evaluate(EvaluateConfig(checkpoint=values["output"], dataset=data.path, output=str(output), limit=12))
    assert isinstance(scores, RankingScores)
    return scores, [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]


def test_vqa_v2_questions_are_trained_on_and_answered(tmp_path: Path) -> None:
    folder = _real("vqa_v2")
    questions, answers = (next(folder.glob(f"*_{what}.json")) for what in ("questions", "annotations"))
    spec = {"kind": "vqa_v2", "annotations": str(questions), "answers": str(answers), "media": str(folder)}
    scores, rows = _run(tmp_path, _converted(tmp_path, spec), task="vqa", head="answers")
    given = {answer["answer"] for row in json.loads(answers.read_text())["annotations"] for answer in row["answers"]}
    assert scores.candidates == len(given)
    assert 0 <= scores.metrics["vqa_accuracy"] <= 100
    assert any(name.startswith("vqa_accuracy/answer_type/") for name in scores.metrics)
    asked = {str(row["question_id"]) for row in json.loads(questions.read_text())["questions"]}
    assert rows
    assert {row["id"] for row in rows} <= asked
    assert {row["predicted"] for row in rows} <= given


def test_snli_ve_hypotheses_are_trained_on_and_classified(tmp_path: Path) -> None:
    annotations = _real("snli_ve", "snli_ve_dev.jsonl")
    photos = tmp_path / "photos"
    for line in annotations.read_text().splitlines():
        _placeholder(photos / f"{json.loads(line)['Flickr30K_ID']}.jpg")
    data = _converted(tmp_path, {"kind": "snli_ve", "annotations": str(annotations), "media": str(photos)})
    scores, rows = _run(tmp_path, data, task="entailment", head="classes")
    assert 0 <= scores.metrics["accuracy"] <= 100
    assert {row["predicted"] for row in rows} <= {"contradiction", "neutral", "entailment"}


def test_nlvr2_statements_are_trained_on_and_judged(tmp_path: Path) -> None:
    annotations = _real("nlvr2_text", "dev.json")
    few = tmp_path / "dev.json"
    lines = annotations.read_text().splitlines()[:20]
    few.write_text("\n".join(lines) + "\n")
    for identifier in (json.loads(line)["identifier"] for line in lines):
        for side in (0, 1):
            _placeholder(tmp_path / "dev" / f"{identifier.rpartition('-')[0]}-img{side}.png")
    data = _converted(tmp_path, {"kind": "nlvr2", "annotations": str(few), "media": str(tmp_path / "dev")})
    scores, rows = _run(tmp_path, data, task="statement", head="compare")
    assert 0 <= scores.metrics["accuracy"] <= 100
    assert {row["predicted"] for row in rows} <= {"True", "False"}
