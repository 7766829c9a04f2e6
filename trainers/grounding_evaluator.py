"""Evaluation of referring expressions: where does the model look, and which proposed box does its map choose?

The protocol is the published one (RefCOCO+, weakly supervised): the map of each expression ranks the picture's proposed boxes,
and the best is right where it overlaps the true box by a half. Without proposals only the map's peak is judged: whether it
lies in the true box.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.reader import open_dataset
from shards.records import Grounding
from trainers.assembly import open_run
from trainers.config import EvaluateConfig
from trainers.distributed import Group, joined_group
from trainers.exam import Crew, Exam, OnProgress, Place, list_places, shown_concepts
from trainers.expression_maps import (
    Boxes,
    Seen,
    map_expressions,
    map_rows,
    open_grounding,
    proposals_of,
    read_proposals,
    size_of,
)
from trainers.metrics.referring import FOUND_AT, WidthBox, found_by_split, intersection_over_union, widths
from trainers.results import ensure_writable, write_results
from trainers.tasks.grounding import GroundingTask

NAMED = 5  # proposed boxes that predictions.jsonl names per expression


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundingScores:
    """What an evaluation found, in percent: `pointing/…` for the peaks, `found/…` for the boxes, by split and over all.

    `largest/…` is no score of the model but a guess: what always choosing the largest proposed box would find.
    """

    metrics: Mapping[str, float]
    chance: Mapping[str, float]  # of a peak anywhere in the picture, and of any of its proposals
    examples: int
    dataset: str
    annotations: str | None  # the column that took the place of the dataset's own
    checkpoint: str
    step: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "metrics": dict(self.metrics),
            "chance": dict(self.chance),
            "task": "grounding",
            "examples": self.examples,
            "dataset": self.dataset,
            "annotations": self.annotations,
            "checkpoint": self.checkpoint,
            "step": self.step,
            "seconds": round(self.seconds, 2),
        }

    def table(self) -> str:
        """Lay the numbers out for a terminal, chance beside them."""
        rows = [f"grounding: {self.examples:,} expressions, step {self.step:,} of {self.checkpoint}"]
        rows.append(f"{'':<24}{'':>10}{'chance':>10}")
        rows += [
            f"{name:<24}{value:>9.2f}%" + (f"{self.chance[name]:>9.2f}%" if name in self.chance else "")
            for name, value in self.metrics.items()
        ]
        return "\n".join(rows)


def evaluate_grounding(config: EvaluateConfig, task: GroundingTask, *, on_progress: OnProgress) -> GroundingScores:
    """Map every expression of a dataset, and write scores.json and predictions.jsonl into `config.output`.

    Under `torchrun` the ranks share the work; rank 0 writes.

    Raises:
        ConfigError: the family maps nothing, or the proposals cannot be read.
        CheckpointError: there is no complete checkpoint.
        DatasetError: a record is damaged or holds no expression with a box: an evaluation drops nothing.
    """
    with joined_group(config.device) as group:
        scores = _evaluated(config, task, group, on_progress)
        group.barrier()
    return scores


def _evaluated(config: EvaluateConfig, task: GroundingTask, group: Group, on_progress: OnProgress) -> GroundingScores:
    began = time.monotonic()
    with group.together():
        run = open_run(config.checkpoint, device=group.device)
        open_grounding(config, run)  # a family that maps nothing is told before anything is read
        dataset = open_dataset(config.dataset, annotations=config.annotations, cache=config.cache)
        places = list_places(dataset, (Grounding,), limit=config.limit)
        exam = Exam(dataset, shown_concepts(config, run, dataset), task, places)
        boxes = proposals_of(exam, read_proposals(task.config.proposals), where=dataset.path)
        if group.is_main:
            ensure_writable(Path(config.output))
    seen = map_expressions(run, exam, boxes, range(len(exam)), config=config, crew=Crew(group, on_progress))
    verdicts = [_judge(task, *each) for each in zip(places, seen, boxes, strict=True)]
    metrics, chance = _summed_up(verdicts, proposed=task.config.proposals is not None)
    scores = GroundingScores(
        metrics=metrics,
        chance=chance,
        examples=len(exam),
        dataset=dataset.path,
        annotations=config.annotations,
        checkpoint=str(run.checkpoint.path),
        step=run.checkpoint.step,
        seconds=time.monotonic() - began,
    )
    with group.together():
        if group.is_main:
            write_results(
                Path(config.output), scores=scores.to_json(), predictions=_predictions(places, seen, boxes, verdicts)
            )
    return scores


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """How one expression was judged, beside what chance would reach."""

    split: str
    pointed: bool  # the peak lies in the true box
    overlap: float  # of the chosen box with the true one; 0 where none was chosen
    any_peak: float  # the share of the picture that the true box takes
    any_box: float  # the share of the proposed boxes that would do
    largest: float  # overlap of the largest proposed box with the true one; 0 where none was proposed


def _judge(task: GroundingTask, place: Place, look: Seen, proposed: Boxes) -> _Verdict:
    truth = _truth(place)
    (x, y), (x0, y0, width, height) = look.peak, truth
    rows, columns = size_of(place.record)
    overlaps = [intersection_over_union(truth, box, convention=task.config.overlap) for box in proposed]
    areas = [box[2] * box[3] for box in proposed]
    return _Verdict(
        split=place.record.origin.split,
        pointed=x0 <= x < x0 + width and y0 <= y < y0 + height,
        overlap=overlaps[look.best] if look.best is not None else 0.0,
        any_peak=width * height / (rows * columns),
        any_box=sum(overlap >= FOUND_AT for overlap in overlaps) / max(1, len(overlaps)),
        largest=overlaps[areas.index(max(areas))] if areas else 0.0,
    )


def _summed_up(verdicts: Sequence[_Verdict], *, proposed: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics, and what chance would reach of each; of chosen boxes only where boxes were proposed."""
    splits = [each.split for each in verdicts]
    pointed = found_by_split((each.split, float(each.pointed)) for each in verdicts)
    metrics = {f"pointing/{split}": value for split, value in pointed.items()}
    chance = _by_split(splits, [each.any_peak for each in verdicts], "pointing")
    if proposed:
        # Beside what a random proposal would reach stands `largest`: always choosing the largest one.
        for name, overlaps in (
            ("found", [each.overlap for each in verdicts]),
            ("largest", [each.largest for each in verdicts]),
        ):
            found = found_by_split(zip(splits, overlaps, strict=True))
            metrics |= {f"{name}/{split}": value for split, value in found.items()}
        chance |= _by_split(splits, [each.any_box for each in verdicts], "found")
    return metrics, chance


def _by_split(splits: Sequence[str], values: Sequence[float], name: str) -> dict[str, float]:
    """Means in percent of each split, and over all."""
    means = {}
    for split in (*dict.fromkeys(splits), "all"):
        own = [value for where, value in zip(splits, values, strict=True) if split in (where, "all")]
        means[f"{name}/{split}"] = 100 * sum(own) / len(own)
    return means


def _truth(place: Place) -> WidthBox:
    annotation = place.annotation
    assert isinstance(annotation, Grounding)
    return widths(annotation.box)


def _predictions(
    places: Sequence[Place], seen: Sequence[Seen], boxes: Sequence[Boxes], verdicts: Sequence[_Verdict]
) -> Iterator[dict[str, Any]]:
    """Rows of `map_rows`, with the chosen `box` and the `truth`, both x, y, width, height, and how they were judged."""
    rows = map_rows(places, seen, boxes, named=NAMED)
    for row, place, look, proposed, verdict in zip(rows, places, seen, boxes, verdicts, strict=True):
        chosen = None if look.best is None else [float(side) for side in proposed[look.best][:4]]
        judged = {"pointed": verdict.pointed, "overlap": round(verdict.overlap, 4) if proposed else None}
        yield row | {"box": chosen, "truth": list(_truth(place)), **judged}
