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
from trainers.results import write_results
from trainers.tasks.grounding import GroundingTask

NAMED = 5  # proposed boxes that predictions.jsonl names per expression


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundingScores:
    """What an evaluation found, in percent: `pointing/…` for the peaks, `found/…` for the boxes, by split and over all."""

    metrics: Mapping[str, float]
    chance: Mapping[str, float]  # of a peak anywhere in the picture, and of any of its proposals
    examples: int
    checkpoint: str
    step: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "metrics": dict(self.metrics),
            "chance": dict(self.chance),
            "task": "grounding",
            "examples": self.examples,
            "checkpoint": self.checkpoint,
            "step": self.step,
            "seconds": round(self.seconds, 2),
        }

    def table(self) -> str:
        """Lay the numbers out for a terminal, chance beside them."""
        rows = [f"grounding: {self.examples:,} expressions, step {self.step:,} of {self.checkpoint}"]
        rows.append(f"{'':<24}{'':>10}{'chance':>10}")
        rows += [f"{name:<24}{value:>9.2f}%{self.chance[name]:>9.2f}%" for name, value in self.metrics.items()]
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
    seen = map_expressions(run, exam, boxes, range(len(exam)), config=config, crew=Crew(group, on_progress))
    metrics, chance = _judged(task, places, seen, boxes)
    scores = GroundingScores(
        metrics=metrics,
        chance=chance,
        examples=len(exam),
        checkpoint=str(run.checkpoint.path),
        step=run.checkpoint.step,
        seconds=time.monotonic() - began,
    )
    with group.together():
        if group.is_main:
            write_results(Path(config.output), scores=scores.to_json(), predictions=_predictions(places, seen, boxes))
    return scores


def _judged(
    task: GroundingTask, places: Sequence[Place], seen: Sequence[Seen], boxes: Sequence[Boxes]
) -> tuple[dict[str, float], dict[str, float]]:
    """Judge peaks and, where boxes were proposed, the chosen ones: metrics, and what chance would reach of each."""
    pointing, found, any_peak, any_box = [], [], [], []
    for place, look, proposed in zip(places, seen, boxes, strict=True):
        split, truth = place.record.origin.split, _truth(place)
        (x, y), (x0, y0, width, height) = look.peak, truth
        pointing.append((split, float(x0 <= x < x0 + width and y0 <= y < y0 + height)))
        rows, columns = size_of(place.record)
        any_peak.append(width * height / (rows * columns))
        overlaps = [intersection_over_union(truth, box, convention=task.config.overlap) for box in proposed]
        found.append((split, overlaps[look.best] if look.best is not None else 0.0))
        any_box.append(sum(overlap >= FOUND_AT for overlap in overlaps) / max(1, len(overlaps)))
    metrics = {f"pointing/{split}": value for split, value in found_by_split(pointing).items()}
    chance = _by_split([split for split, _ in pointing], any_peak, "pointing")
    if task.config.proposals is not None:
        metrics |= {f"found/{split}": value for split, value in found_by_split(found).items()}
        chance |= _by_split([split for split, _ in found], any_box, "found")
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


def _predictions(places: Sequence[Place], seen: Sequence[Seen], boxes: Sequence[Boxes]) -> Iterator[dict[str, Any]]:
    """Rows of `map_rows`, with the chosen `box` and the `truth`, both x, y, width, height."""
    rows = map_rows(places, seen, boxes, named=NAMED)
    for row, place, look, proposed in zip(rows, places, seen, boxes, strict=True):
        chosen = None if look.best is None else [float(side) for side in proposed[look.best][:4]]
        yield row | {"box": chosen, "truth": list(_truth(place))}
