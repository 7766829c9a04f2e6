"""Evaluating a run by whatever it was trained for: retrieval for pairs, maps for expressions, else a ranking of candidates."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from shards.reader import open_dataset
from trainers import evaluator
from trainers.checkpoint import find_checkpoint
from trainers.config import EvaluateConfig
from trainers.evaluator import Scores
from trainers.exam import OnProgress, silent
from trainers.grounding_evaluator import GroundingScores, evaluate_grounding
from trainers.ranking_evaluator import RankingScores, evaluate_ranking, ranked_task
from trainers.tasks import load_task
from trainers.tasks.grounding import GroundingTask

AnyScores: TypeAlias = Scores | RankingScores | GroundingScores


def plan(config: EvaluateConfig) -> str:
    """Say in one line what an evaluation would do; loads no weights, writes nothing."""
    grounds = _grounds(config) is not None
    if not grounds and not _ranks(config):
        return evaluator.plan(config)
    checkpoint = find_checkpoint(Path(config.checkpoint))
    dataset = open_dataset(config.dataset, annotations=config.annotations, cache=config.cache)
    does = "maps expressions of" if grounds else "ranks candidates for"
    return f"step {checkpoint.step:,} of {checkpoint.run} {does} {len(dataset):,} records of {dataset.path} -> {config.output}"


def evaluate(config: EvaluateConfig, *, on_progress: OnProgress = silent) -> AnyScores:
    """Evaluate a run and write scores.json and predictions.jsonl into `config.output`.

    Raises:
        ConfigError: the config does not fit the run.
        CheckpointError: there is no complete checkpoint.
        DatasetError: a record is damaged or lacks what the task asks for: an evaluation drops nothing.
    """
    if _ranks(config):
        return evaluate_ranking(config, on_progress=on_progress)
    grounded = _grounds(config)
    if grounded is not None:
        return evaluate_grounding(config, grounded, on_progress=on_progress)
    return evaluator.evaluate(config, on_progress=on_progress)


def _ranks(config: EvaluateConfig) -> bool:
    """Whether the run's task ranks candidates; read off its stored config."""
    stored = find_checkpoint(Path(config.checkpoint)).state.config.get("task")
    return ranked_task(stored, config) is not None


def _grounds(config: EvaluateConfig) -> GroundingTask | None:
    """The task where expressions are to be grounded: what the run was trained for, or what is asked for here."""
    stored = find_checkpoint(Path(config.checkpoint)).state.config.get("task")
    spec = {**(stored if isinstance(stored, dict) else {}), **config.task}
    task = load_task(spec) if spec.get("kind") == "grounding" else None
    return task if isinstance(task, GroundingTask) else None
