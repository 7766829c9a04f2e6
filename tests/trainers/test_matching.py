"""An evaluation that is interrupted while pairs are matched goes on with the pictures that are left, to the same scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.families.vicha.model import Vicha
from trainers.config import EvaluateConfig, PredictConfig, TrainConfig
from trainers.evaluator import Scores, evaluate
from trainers.prediction import predict
from trainers.trainer import train

PICTURES, BATCH = 18, 4


class Interrupted(Exception):
    """Somebody pulled the plug."""


@pytest.fixture
def exam(tmp_path: Path, tiny_training: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A run of two steps, and how it is evaluated."""
    values = tiny_training(steps=2)
    train(TrainConfig.model_validate(values), lines=False)
    dataset = values["streams"]["world"]["dataset"]
    output = str(tmp_path / "scores")
    return {"checkpoint": values["output"], "dataset": dataset, "output": output, "k_test": 3, "batch_size": BATCH}


@pytest.fixture
def matched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each pass of the match head was given."""
    passes: list[int] = []
    match_pairs = Vicha.match_pairs

    def counted(self: Vicha, *states: Any) -> Any:
        passes.append(len(states[1]))
        return match_pairs(self, *states)

    monkeypatch.setattr(Vicha, "match_pairs", counted)
    return passes


def _evaluate(values: dict[str, Any], *, until: int = PICTURES) -> tuple[Scores, bytes, list[int]]:
    """Evaluate, maybe until so many pictures are matched: scores, predictions, and how the match went on."""
    told: list[int] = []

    def look(stage: str, done: int, total: int) -> None:
        if stage == "match":
            told.append(done)
            if until < done:
                raise Interrupted

    scores = evaluate(EvaluateConfig.model_validate(values), on_progress=look)
    return scores, (Path(values["output"]) / "predictions.jsonl").read_bytes(), told


def test_an_interrupted_evaluation_matches_only_what_is_left_and_ends_with_the_same_bytes(
    exam: dict[str, Any], matched: list[int], tmp_path: Path
) -> None:
    whole, expected, _ = _evaluate({**exam, "output": str(tmp_path / "whole")})
    pairs = sum(matched)
    matched.clear()
    with pytest.raises(Interrupted):
        _evaluate(exam, until=9)
    first = sum(matched)
    matched.clear()
    scores, predictions, told = _evaluate({**exam, "state_bytes": 0})  # whose states lie where, does not matter
    assert told[0] == 2 * BATCH  # the third batch was not finished
    assert 0 < sum(matched) < pairs < first + sum(matched)
    assert scores.metrics == whole.metrics
    assert predictions == expected
    assert sorted(path.name for path in Path(exam["output"]).iterdir()) == ["predictions.jsonl", "scores.json"]


def test_what_another_evaluation_left_is_not_taken(exam: dict[str, Any]) -> None:
    for change in ({"scoring": "match_and_contrast"}, {"k_test": 4}, {"match_batch_size": 2}):
        with pytest.raises(Interrupted):
            _evaluate(exam, until=9)
        _, _, told = _evaluate({**exam, **change})
        assert told[0] == 0
        assert not list(Path(exam["output"]).glob(".*"))


def test_predictions_of_what_is_nearest_go_on_and_leave_nothing_behind(
    exam: dict[str, Any], matched: list[int], tmp_path: Path
) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "match" and done > 9:
            raise Interrupted

    def predicted(output: str, **how: Any) -> bytes:
        found = predict(PredictConfig.model_validate({**exam, "output": output}), **how).file
        assert found is not None
        return found.read_bytes()

    expected, pairs = predicted(str(tmp_path / "whole")), sum(matched)
    with pytest.raises(Interrupted):
        predicted(exam["output"], on_progress=stop)
    matched.clear()
    assert predicted(exam["output"]) == expected
    assert 0 < sum(matched) < pairs
    assert not list(Path(exam["output"]).glob(".match-*"))
