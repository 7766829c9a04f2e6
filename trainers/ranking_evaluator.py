"""Evaluation of tasks whose model ranks candidates for each annotation: answers to questions, classes, true or false."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import ConfigError, DatasetError
from shards.reader import open_dataset
from shards.records import Annotation
from trainers.assembly import open_run
from trainers.config import AskConfig, EvaluateConfig
from trainers.distributed import Group, joined_group
from trainers.exam import Crew, Exam, OnProgress, list_places, shown_concepts
from trainers.ranking import choice_of, rank_examples, ranking_rows
from trainers.results import ensure_writable, write_results
from trainers.task import RankedTask, SubmittedTask
from trainers.tasks import load_task

logger = logging.getLogger(__name__)

NAMED = 5  # candidates that predictions.jsonl names per example


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingScores:
    """What an evaluation found; percentages. Without published truth there are no metrics, only predictions."""

    metrics: Mapping[str, float]
    task: str
    examples: int
    scored: int  # examples whose truth is published
    candidates: int
    dataset: str
    annotations: str | None  # the column that took the place of the dataset's own
    checkpoint: str
    step: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "metrics": dict(self.metrics),
            "task": self.task,
            "examples": self.examples,
            "scored": self.scored,
            "candidates": self.candidates,
            "dataset": self.dataset,
            "annotations": self.annotations,
            "checkpoint": self.checkpoint,
            "step": self.step,
            "seconds": round(self.seconds, 2),
        }

    def table(self) -> str:
        """Lay the numbers out for a terminal."""
        rows = [
            f"{self.task}: {self.examples:,} examples, {self.candidates:,} candidates, step {self.step:,} of {self.checkpoint}"
        ]
        if not self.metrics:
            return "\n".join(
                [*rows, "no score is possible: the truth of this split is not published; predictions only"]
            )
        if self.scored < self.examples:
            rows.append(f"over the {self.scored:,} examples whose truth is published")
        # Kinds of question are dozens; scores.json and the report have them.
        shown = {name: value for name, value in self.metrics.items() if "/question_type/" not in name}
        return "\n".join([*rows, *(f"{name:<40}{value:>9.2f}%" for name, value in shown.items())])


def evaluate_ranking(config: EvaluateConfig, *, on_progress: OnProgress) -> RankingScores:
    """Rank the candidates for every annotation of a dataset, and write scores, predictions and what a server takes.

    Under `torchrun` the ranks share the work; rank 0 writes.

    Raises:
        ConfigError: the run's task ranks nothing, or `k_test` keeps nothing.
        CheckpointError: there is no complete checkpoint.
        DatasetError: a record is damaged or has no annotation of the task: an evaluation drops nothing.
    """
    with joined_group(config.device) as group:
        scores = _evaluated(config, group, on_progress)
        group.barrier()
    return scores


def _evaluated(config: EvaluateConfig, group: Group, on_progress: OnProgress) -> RankingScores:
    began = time.monotonic()
    with group.together():
        run = open_run(config.checkpoint, device=group.device)
        found = ranked_task(run.config.task, config)
        if found is None:
            raise ConfigError("task: a task that ranks candidates is needed here; set task.kind=…")
        kind, task = found
        dataset = open_dataset(config.dataset, annotations=config.annotations, cache=config.cache)
        places = list_places(dataset, (task.asks,), limit=config.limit)
        exam = Exam(dataset, shown_concepts(config, run, dataset), task, places)
        choice = choice_of(config, run, task)
        if group.is_main:
            ensure_writable(Path(config.output))
    every = range(len(exam))
    ranked = rank_examples(run, exam, choice, every, config=config, crew=Crew(group, on_progress), named=NAMED)
    annotations = [place.annotation for place in exam.places]
    predicted = [choice.candidates[best] for best in ranked.places[:, 0].tolist()]
    right = [task.rightness(said, each) for said, each in zip(predicted, annotations, strict=True)]
    scores = RankingScores(
        metrics=task.scores(predicted, annotations),
        task=kind,
        examples=len(exam),
        scored=sum(each is not None for each in right),
        candidates=len(choice.candidates),
        dataset=dataset.path,
        annotations=config.annotations,
        checkpoint=str(run.checkpoint.path),
        step=run.checkpoint.step,
        seconds=time.monotonic() - began,
    )
    with group.together():
        if group.is_main:
            write_results(
                Path(config.output),
                scores=scores.to_json(),
                predictions=(
                    {**row, "right": each}
                    for row, each in zip(ranking_rows(exam, choice.candidates, every, ranked), right, strict=True)
                ),
                submission=_submission(task, predicted, annotations),
            )
    return scores


def _submission(task: RankedTask, predicted: Sequence[str], annotations: Sequence[Annotation]) -> str | None:
    """What a server takes; `None` where there is no server, or the dataset is not one that it knows."""
    if not isinstance(task, SubmittedTask):
        return None
    try:
        return task.submission(predicted, annotations)
    except DatasetError as problem:
        logger.warning("%s", problem)
        return None


def ranked_task(stored: object, config: AskConfig) -> tuple[str, RankedTask] | None:
    """Build the task that a run is asked for, and say its kind; `None` where it ranks no candidates.

    Args:
        stored: the run's `task`: a spec where it was trained here, else anything.
        config: whose `task` keys come first.
    """
    spec = {**(stored if isinstance(stored, dict) else {}), **config.task}
    task = load_task(spec) if spec else None
    return (str(spec["kind"]), task) if isinstance(task, RankedTask) else None
