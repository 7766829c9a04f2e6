"""Evaluating a run by whatever it was trained for: retrieval for pairs, a ranking of candidates for the other tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from shards.reader import open_dataset
from trainers import evaluator
from trainers.checkpoint import find_checkpoint
from trainers.config import EvaluateConfig
from trainers.evaluator import OnProgress, Scores
from trainers.ranking_evaluator import RankingScores, evaluate_ranking, ranked_task

AnyScores: TypeAlias = Scores | RankingScores


def _silent(stage: str, done: int, total: int) -> None:
    return None


def plan(config: EvaluateConfig) -> str:
    """Say in one line what an evaluation would do; loads no weights, writes nothing."""
    if not _ranks(config):
        return evaluator.plan(config)
    checkpoint = find_checkpoint(Path(config.checkpoint))
    dataset = open_dataset(config.dataset, annotations=config.annotations, cache=config.cache)
    return (
        f"step {checkpoint.step:,} of {checkpoint.run} ranks candidates for {len(dataset):,} records of {dataset.path} "
        f"-> {config.output}"
    )


def evaluate(config: EvaluateConfig, *, on_progress: OnProgress = _silent) -> AnyScores:
    """Evaluate a run and write scores.json and predictions.jsonl into `config.output`.

    Raises:
        ConfigError: the config does not fit the run.
        CheckpointError: there is no complete checkpoint.
        DatasetError: a record is damaged or lacks what the task asks for: an evaluation drops nothing.
    """
    if _ranks(config):
        return evaluate_ranking(config, on_progress=on_progress)
    return evaluator.evaluate(config, on_progress=on_progress)


def _ranks(config: EvaluateConfig) -> bool:
    """Whether the run's task ranks candidates; read off its stored config."""
    stored = find_checkpoint(Path(config.checkpoint)).state.config.get("task")
    return ranked_task(stored, config) is not None
