"""What a report is about: datasets, training runs, evaluations and timings, found in the folders that were named."""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from jobs.report.curves import Curve
from jobs.report.pictures import Locator
from shards.errors import InputError, OstrakaError
from shards.reader import Dataset, open_dataset

logger = logging.getLogger(__name__)

Direction = Literal["text_to_image", "image_to_text"]

DEEPEST = 3  # levels of folders below a named one
CLOSED = frozenset({"checkpoints", "tensorboard", "shards", "index", "sidecars", "commits", "raw"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A training run: its config as stored, and its logged numbers."""

    path: Path
    config: Mapping[str, Any]
    curves: tuple[Curve, ...]

    @property
    def title(self) -> str:
        kind = str((self.config.get("task") or {}).get("kind") or self.path.name)
        if ((self.config.get("family") or {}).get("head") or {}).get("kind") == "assign":
            return "Text assignment"
        return {
            "pretraining": "Pretraining",
            "retrieval": "Fine-tuning for retrieval",
            "grounding": "Fine-tuning on expressions",
            "vqa": "Fine-tuning on questions",
            "entailment": "Fine-tuning on entailment",
            "statement": "Fine-tuning on statements",
        }.get(kind, kind.capitalize())


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """One query of a retrieval evaluation and what was ranked first for it."""

    direction: Direction
    query_key: str
    query_text: str | None  # of a text query
    truth: tuple[str, ...]
    rank: int  # of the best true answer; 0 is first
    ranked: tuple[tuple[str, float], ...]  # key and score, best first

    @property
    def margin(self) -> float:
        """How far the first candidate leads; what makes one right answer better than another."""
        return self.ranked[0][1] - self.ranked[1][1] if len(self.ranked) > 1 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The scores of one checkpoint on one dataset, in percent, beside what guessing scores."""

    path: Path
    metrics: Mapping[str, float]
    chance: Mapping[str, float]
    cosine: Mapping[str, float]  # before the match head re-ranked; empty where it did not
    facts: Mapping[str, Any]  # images, texts, checkpoint, step, …

    @property
    def title(self) -> str:
        return self.path.name.replace("_", " ").replace("-", " ").capitalize()

    @property
    def task(self) -> str | None:
        """What was asked: `vqa`, `entailment`, `statement`, `grounding`; None for retrieval."""
        task = self.facts.get("task")
        return None if task is None else str(task)

    def open_dataset(self) -> Dataset | None:
        """The dataset that was looked at; None where it is not said, or no longer there."""
        path, annotations = self.facts.get("dataset"), self.facts.get("annotations")
        try:
            return None if path is None else open_dataset(str(path), annotations=annotations)
        except OstrakaError as error:
            logger.info("%s: its records are not shown (%s)", self.path, error)
            return None

    def predictions(self) -> Iterator[dict[str, Any]]:
        """Read what was predicted, in the file's order; nothing where there is no such file."""
        path = self.path / "predictions.jsonl"
        if path.is_file():
            yield from read_json_lines(path)

    def retrievals(self, direction: Direction) -> Iterator[Retrieval]:
        """Read the predictions of one direction, in the file's order."""
        for row in self.predictions():
            if row.get("direction") == direction:
                query = row["query"]
                yield Retrieval(
                    direction=direction,
                    query_key=str(query["key"]),
                    query_text=query.get("text"),
                    truth=tuple(str(key) for key in row["truth"]),
                    rank=int(row["rank"]),
                    ranked=tuple((str(item["key"]), float(item["score"])) for item in row["ranked"]),
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedStep:
    """One step of a flow and what it took."""

    name: str
    title: str
    command: str
    seconds: float
    peak_mib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything that one page tells of."""

    datasets: tuple[Dataset, ...] = ()
    shown: tuple[Dataset, ...] = ()  # those of which single records are shown: the named ones, else the first found
    runs: tuple[Run, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    timings: tuple[TimedStep, ...] = ()
    agreements: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By concepts column: the share of a picture's five best concepts that its own captions name, and another's captions."""
    sources: tuple[str, ...] = ()  # as named on the command line

    @property
    def retrievals(self) -> tuple[Evaluation, ...]:
        """The evaluations that compare pictures with captions."""
        return tuple(each for each in self.evaluations if each.task is None)

    @property
    def task_evaluations(self) -> tuple[Evaluation, ...]:
        """All others."""
        return tuple(each for each in self.evaluations if each.task is not None)

    def locator(self, evaluation: Evaluation) -> Locator:
        """Find the records that an evaluation tells of: in the dataset that it names, else in those of the page."""
        own = evaluation.open_dataset()
        return Locator(self.datasets if own is None else (own, *self.datasets))


def find(datasets: Sequence[str], runs: Sequence[str]) -> Findings:
    """Open what was named; a folder that is neither dataset nor run is searched for such folders.

    Raises:
        InputError: a name leads to nothing that a report could tell of.
        DatasetError: a dataset is damaged.
    """
    opened = [open_dataset(name) for name in datasets]
    named = tuple(opened)
    found_runs: list[Run] = []
    evaluations: list[Evaluation] = []
    timings: tuple[TimedStep, ...] = ()
    agreements: dict[str, tuple[float, float]] = {}
    for name in runs:
        before = len(opened) + len(found_runs) + len(evaluations)
        for folder in _folders(Path(name), DEEPEST):
            if (folder / "dataset.json").is_file():
                opened.append(open_dataset(folder))
            if (folder / "metrics.jsonl").is_file():
                found_runs.append(read_run(folder))
            if (folder / "scores.json").is_file():
                evaluations.append(read_evaluation(folder))
            if (folder / "timings.json").is_file():
                timings = (*timings, *read_timings(folder / "timings.json"))
            if (folder / "summary.json").is_file():
                agreements |= read_agreement(folder / "summary.json")
        if before == len(opened) + len(found_runs) + len(evaluations):
            said = (
                "holds no dataset.json, metrics.jsonl or scores.json"
                if Path(name).is_dir()
                else "there is no such folder"
            )
            raise InputError(
                f"{name}: {said}; name a run folder, a folder of an evaluation, or one that holds such folders"
            )
    ordered = tuple(sorted(found_runs, key=lambda run: (run.config.get("init") is not None, str(run.path))))
    return Findings(
        datasets=(every := tuple(sorted(opened, key=_dataset_order))),
        shown=named or every[:1],
        runs=ordered,
        evaluations=tuple(sorted(evaluations, key=lambda found: _evaluation_order(found, ordered))),
        timings=timings,
        agreements=agreements,
        sources=(*datasets, *runs),
    )


def read_run(folder: Path) -> Run:
    """Read a run's config and curves; numbers that are no longer finite end their curve's last point."""
    points: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for row in read_json_lines(folder / "metrics.jsonl"):
        value = float(row["value"])
        if math.isfinite(value):
            points[str(row["name"])][int(row["step"])] = value
    config_path = folder / "config.yaml"
    config = yaml.safe_load(config_path.read_text(encoding="utf-8")) if config_path.is_file() else {}
    curves = [
        Curve(name=name, steps=tuple(sorted(values)), values=tuple(values[step] for step in sorted(values)))
        for name, values in points.items()
    ]
    return Run(path=folder, config=config or {}, curves=tuple(curves))


def read_evaluation(folder: Path) -> Evaluation:
    """Read the scores of an evaluation."""
    path = folder / "scores.json"
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        parts = {name: dict(scores.pop(name, None) or {}) for name in ("metrics", "chance", "cosine")}
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: not the scores of an evaluation ({error}); run `evaluate` again") from error
    return Evaluation(path=folder, facts=scores, **parts)


def read_timings(path: Path) -> tuple[TimedStep, ...]:
    """Read what the steps of a flow took."""
    try:
        steps = json.loads(path.read_text(encoding="utf-8"))["steps"]
        names = [field.name for field in fields(TimedStep)]
        return tuple(TimedStep(**{name: step[name] for name in names}) for step in steps)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no timings of a demo ({error}); remove the file") from error


def read_agreement(path: Path) -> dict[str, tuple[float, float]]:
    """Read how far concepts agree with captions, from what a `concepts` command summed up; empty where it could not tell."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        agreement = summary["agreement"]
        return {str(summary["column"]): (float(agreement["own"]), float(agreement["other"]))} if agreement else {}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the summary of a `concepts` command ({error}); run it again") from error


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read a file of one JSON object per line; a last line that is still being written is left out."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                if not line.endswith("\n"):
                    return
                raise InputError(f"{path}: line {number} is no JSON ({error}); remove the line") from error
            yield row


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth == 0 or not folder.is_dir() or (folder / "dataset.json").is_file():
        return
    for child in sorted(folder.iterdir()):
        if child.is_dir() and child.name not in CLOSED and not child.name.startswith("."):
            yield from _folders(child, depth - 1)


def _dataset_order(dataset: Dataset) -> tuple[int, str]:
    splits = ("train", "val", "test")
    return (splits.index(dataset.card.split) if dataset.card.split in splits else len(splits), dataset.path)


def _evaluation_order(evaluation: Evaluation, runs: Sequence[Run]) -> tuple[int, float]:
    """In the order of the runs that were scored; where that is not known, the better ones later."""
    checkpoint = Path(str(evaluation.facts.get("checkpoint", ""))).resolve()
    place = next((n for n, run in enumerate(runs) if checkpoint.is_relative_to(run.path.resolve())), len(runs))
    return place, evaluation.metrics.get("text_to_image_r1", 0.0)
