"""Evaluation of tasks whose model ranks candidates for each annotation: answers to questions, classes, true or false."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from model.examples import Example
from model.family import Rank
from shards.address import Address
from shards.errors import ConfigError, DatasetError, OstrakaError
from shards.reader import Dataset, open_dataset
from shards.records import Annotation, Record
from shards.sidecar import Sidecar
from shards.stream import Item
from trainers.arrival import Deferred
from trainers.assembly import TrainedRun, open_concepts, open_run
from trainers.augment import EvalView
from trainers.config import EvaluateConfig
from trainers.distributed import Group, joined_group
from trainers.gather import gather_rows, shares
from trainers.pairing import CONCEPTS
from trainers.stopwatch import Stopwatch
from trainers.task import Task
from trainers.tasks import load_task

NAMED = 5  # candidates that predictions.jsonl names per example
SCORES = "scores.json"
PREDICTIONS = "predictions.jsonl"
SUBMISSION = "submission.json"

OnProgress = Callable[[str, int, int], object]  # stage, done, of how many


@runtime_checkable
class RankedTask(Task, Protocol):
    """A task whose examples are judged by ranking candidates."""

    def candidates(self, datasets: Iterable[Dataset]) -> tuple[str, ...]:
        """What to choose from; `datasets` are those that were trained on."""
        ...

    def scores(self, predicted: Sequence[str], annotations: Sequence[Annotation]) -> Mapping[str, float]:
        """Score one prediction per annotation; empty where the truth is not published."""
        ...


@runtime_checkable
class SubmittedTask(Protocol):
    """A task that is scored by a public server on a split without truth."""

    def submission(self, predicted: Sequence[str], annotations: Sequence[Annotation]) -> list[dict[str, object]]:
        """What the server takes."""
        ...


class _RankingProcessor(Protocol):
    def request(self, request: Rank) -> Rank:
        """Prepare a request for the family."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingScores:
    """What an evaluation found; percentages. Without published truth there are no metrics, only predictions."""

    metrics: Mapping[str, float]
    task: str
    examples: int
    candidates: int
    checkpoint: str
    step: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "metrics": dict(self.metrics),
            "task": self.task,
            "examples": self.examples,
            "candidates": self.candidates,
            "checkpoint": self.checkpoint,
            "step": self.step,
            "seconds": round(self.seconds, 2),
        }

    def table(self) -> str:
        """Lay the numbers out for a terminal."""
        rows = [
            f"{self.task}: {self.examples:,} examples, {self.candidates:,} candidates, step {self.step:,} of {self.checkpoint}"
        ]
        rows += [f"{name:<40}{value:>9.2f}%" for name, value in self.metrics.items()]
        return "\n".join(rows if self.metrics else [*rows, "no truth is published for this split: predictions only"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where one annotation lies, and what it says."""

    shard: int
    row: int
    key: str
    number: int
    annotation: Annotation


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


@torch.no_grad()
def _evaluated(config: EvaluateConfig, group: Group, on_progress: OnProgress) -> RankingScores:
    began = time.monotonic()
    with group.together():
        run = open_run(config.checkpoint, device=group.device)
        found = ranked_task(run.config.task, config)
        if found is None or config.k_test < 1:
            raise ConfigError("task: a task that ranks candidates and k_test of at least 1 are needed here")
        kind, task = found
        dataset = open_dataset(config.dataset, annotations=config.annotations, cache=config.cache)
        exam = _Exam(dataset, _concepts(config, run, dataset), task, places=_places(dataset, config.limit))
        candidates = task.candidates(_trained_on(run))
        prepared = cast(_RankingProcessor, run.processor).request(
            Rank(candidates=candidates, keep=min(config.k_test, len(candidates)))
        )
    places, scored = _ranked(config, run, prepared, exam, _Crew(group, on_progress))
    annotations = [place.annotation for place in exam.places]
    predicted = [candidates[best] for best in places[:, 0].tolist()]
    scores = RankingScores(
        metrics=task.scores(predicted, annotations),
        task=kind,
        examples=len(annotations),
        candidates=len(candidates),
        checkpoint=str(run.checkpoint.path),
        step=run.checkpoint.step,
        seconds=time.monotonic() - began,
    )
    with group.together():
        if group.is_main:
            submission = task.submission(predicted, annotations) if isinstance(task, SubmittedTask) else None
            _write(Path(config.output), scores, _predictions(exam, candidates, places, scored), submission)
    return scores


def ranked_task(stored: object, config: EvaluateConfig) -> tuple[str, RankedTask] | None:
    """Build the task that a run is evaluated on, and say its kind; `None` where it ranks no candidates.

    Args:
        stored: the run's `task`: a spec where it was trained here, else anything.
        config: whose `task` keys come first.
    """
    spec = {**(stored if isinstance(stored, dict) else {}), **config.task}
    task = load_task(spec) if spec else None
    return (str(spec["kind"]), task) if isinstance(task, RankedTask) else None


def _trained_on(run: TrainedRun) -> Iterator[Dataset]:
    """Open the run's datasets, one at a time and only when asked."""
    for stream in run.config.streams.values():
        yield open_dataset(stream.dataset, annotations=stream.annotations, cache=run.config.cache)


def _concepts(config: EvaluateConfig, run: TrainedRun, dataset: Dataset) -> Sidecar | None:
    """Open the concepts that the model is to see: those asked for, else the column that it was trained with."""
    trained_with = [stream.concepts for stream in run.config.streams.values() if stream.concepts is not None]
    wanted = config.concepts or (trained_with[0].split("-")[0] if trained_with else None)
    return open_concepts(dataset, wanted) if wanted is not None else None


def _places(dataset: Dataset, limit: int | None) -> tuple[_Place, ...]:
    """List every annotation in the dataset's order, of the first `limit` records; headers only.

    Raises:
        DatasetError: there is none.
    """
    records = (
        (shard, row, record)
        for shard in range(len(dataset.shard_sizes()))
        for row, record in enumerate(dataset.records(shard, payload=False))
    )
    found = tuple(
        _Place(shard=shard, row=row, key=record.key, number=number, annotation=annotation)
        for shard, row, record in islice(records, limit)
        for number, annotation in enumerate(record.annotations)
    )
    if not found:
        raise DatasetError(f"{dataset.path}: no annotation to evaluate; name a dataset made from questions or labels")
    return found


class _Exam:
    """The examples of an evaluation, in order; a picture is read and resized once for all its annotations in a row."""

    def __init__(self, dataset: Dataset, concepts: Sidecar | None, task: Task, *, places: Sequence[_Place]) -> None:
        self.dataset = dataset
        self.concepts = concepts
        self.task = task
        self.places = places
        self._record: tuple[tuple[int, int], Record] | None = None

    def examples(self, chosen: Sequence[int], view: _Remembering) -> list[Example]:
        """Make some examples.

        Raises:
            DamagedRecordError: a picture cannot be read; an evaluation has no reserve for it.
        """
        draws = np.random.default_rng(0)  # an evaluation view draws nothing; the signature asks for a generator
        return [self.task.example(self._item(self.places[number]), view, draws) for number in chosen]

    def _item(self, place: _Place) -> Item:
        where = (place.shard, place.row)
        if self._record is None or self._record[0] != where:
            self._record = where, self.dataset.record(*where)
        address = Address(source="", shard=place.shard, item=place.row, epoch=0, position=0)
        sidecars = {} if self.concepts is None else {CONCEPTS: self.concepts.row(place.shard, place.key)}
        return Item(address=address, record=self._record[1], annotation=place.number, sidecars=sidecars)


class _Remembering:
    """An evaluation view that keeps the pictures of the record it showed last."""

    def __init__(self, view: EvalView) -> None:
        self._view = view
        self._key = ""
        self._shown: dict[int, Tensor] = {}

    @property
    def stopwatch(self) -> Stopwatch:
        return self._view.stopwatch

    def take_deferred(self) -> Deferred:
        """Nothing is left to do."""
        return self._view.take_deferred()

    def __call__(self, record: Record, rng: np.random.Generator, *, position: int = 0) -> Tensor:
        """Show picture number `position`: (3, R, R) uint8."""
        if record.key != self._key:
            self._key, self._shown = record.key, {}
        if position not in self._shown:
            self._shown[position] = self._view(record, rng, position=position)
        return self._shown[position]


@dataclass(frozen=True, slots=True)
class _Crew:
    """Who ranks, and who is told how far they are."""

    group: Group
    on_progress: OnProgress


def _ranked(config: EvaluateConfig, run: TrainedRun, request: Rank, exam: _Exam, crew: _Crew) -> tuple[Tensor, Tensor]:
    """Rank for every example, each rank its share: (N, k) numbers of candidates and (N, k) scores, on the CPU."""
    group, total, places, scores = crew.group, len(exam.places), [], []
    view = _Remembering(EvalView(run.processor.view.image_size))
    own = shares(group, total=total, size=config.batch_size)
    mixed = torch.autocast(group.device.type, dtype=torch.bfloat16) if config.precision == "bf16" else nullcontext()
    with group.together(), mixed:  # a damaged picture stops every rank, with its name
        for chosen in own:
            examples = exam.examples(chosen, view)
            batch = run.processor(examples, [0] * len(examples), train=False).to(group.device)
            found = run.family.predict(batch, request)
            places.append(found.places)
            scores.append(found.scores.float())
            if group.is_main:
                crew.on_progress("rank", chosen.stop, total)
    numbers = [number for chosen in own for number in chosen]
    return (
        gather_rows(group, places, numbers, total=total).cpu(),
        gather_rows(group, scores, numbers, total=total).cpu(),
    )


def _predictions(exam: _Exam, candidates: Sequence[str], places: Tensor, scores: Tensor) -> Iterator[dict[str, Any]]:
    for place, numbers, values in zip(exam.places, places[:, :NAMED].tolist(), scores[:, :NAMED].tolist(), strict=True):
        yield {
            "key": place.key,
            "annotation": place.number,
            "id": place.annotation.id,
            "predicted": candidates[numbers[0]],
            "ranked": [
                {"text": candidates[number], "score": round(value, 5)}
                for number, value in zip(numbers, values, strict=True)
            ],
        }


def _write(
    output: Path,
    scores: RankingScores,
    predictions: Iterable[dict[str, Any]],
    submission: list[dict[str, object]] | None,
) -> None:
    """Write all files beside and rename them, the scores last: they say that the evaluation is complete."""
    texts = {PREDICTIONS: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)}
    if submission is not None:
        texts[SUBMISSION] = json.dumps(submission, ensure_ascii=False) + "\n"
    texts[SCORES] = json.dumps(scores.to_json(), indent=1) + "\n"
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            unfinished = output / f".{name}-{os.getpid()}"
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(output / name)
    except OSError as error:
        raise OstrakaError(f"{output}: the scores cannot be written there ({error}); choose another output") from error
