"""Evaluation of referring expressions: where does the model look, and which proposed box does its map choose?

The protocol is the published one (RefCOCO+, weakly supervised): the map of each expression ranks the picture's proposed boxes,
and the best is right where it overlaps the true box by a half. Without proposals only the map's peak is judged: whether it
lies in the true box.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shards.address import Address
from shards.errors import ConfigError, DatasetError, OstrakaError
from shards.reader import Dataset, open_dataset
from shards.records import Grounding, Record
from shards.sidecar import Sidecar
from shards.stream import Item
from trainers.assembly import TrainedRun, open_concepts, open_run
from trainers.augment import EvalView
from trainers.config import EvaluateConfig
from trainers.distributed import Group, joined_group
from trainers.gather import gather_rows, shares
from trainers.metrics.referring import FOUND_AT, found_by_split, intersection_over_union, widths
from trainers.pairing import CONCEPTS
from trainers.tasks.grounding import GroundingTask

SCORES = "scores.json"
PREDICTIONS = "predictions.jsonl"

OnProgress = Callable[[str, int, int], object]  # stage, done, of how many
Boxes = Sequence[Sequence[float]]  # (x0, y0, width, height, …) in pixels


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expression:
    """One expression to test, where it lies, and the boxes it may mean."""

    shard: int
    row: int
    number: int
    record: Record  # header only
    truth: tuple[float, float, float, float]  # x0, y0, width, height in pixels of the stored picture
    proposals: Boxes

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the stored picture.

        Raises:
            DatasetError: the record does not say.
        """
        media = self.record.media[0]
        if media.height is None or media.width is None:
            raise DatasetError(f"record {self.record.key!r} does not say its picture's size; write the dataset again")
        return media.height, media.width


def evaluate_grounding(config: EvaluateConfig, task: GroundingTask, *, on_progress: OnProgress) -> GroundingScores:
    """Map every expression of a dataset, and write scores.json and predictions.jsonl into `config.output`.

    Under `torchrun` the ranks share the work; rank 0 writes.

    Raises:
        ConfigError: the family maps nothing, or the proposals cannot be read.
        CheckpointError: there is no complete checkpoint.
        DatasetError: a record is damaged or holds no expression with a box: an evaluation drops nothing.
    """
    began = time.monotonic()
    with joined_group(config.device) as group:
        with group.together():
            run = open_run(config.checkpoint, device=group.device)
            dataset = open_dataset(config.dataset, annotations=config.annotations, cache=config.cache)
            expressions = _expressions(dataset, _read_proposals(task.config.proposals), limit=config.limit)
            _grounding(run)  # a family that maps nothing is told before anything is read
        exam = _Exam(run, task, dataset, _concepts(config, run, dataset), expressions)
        rows = _looked(config, exam, group, on_progress)
        scores = _scored(task, run, expressions, rows, proposed=task.config.proposals is not None, began=began)
        with group.together():
            if group.is_main:
                _write(Path(config.output), scores, _predictions(expressions, rows))
        group.barrier()
    return scores


@dataclass(frozen=True, slots=True)
class _Exam:
    """Who looks, at what."""

    run: TrainedRun
    task: GroundingTask
    dataset: Dataset
    concepts: Sidecar | None
    expressions: Sequence[_Expression]

    def item(self, number: int) -> Item:
        """Read one expression with its picture."""
        where = self.expressions[number]
        address = Address(source="", shard=where.shard, item=where.row, epoch=0, position=0)
        record = self.dataset.record(where.shard, where.row)
        sidecars = {} if self.concepts is None else {CONCEPTS: self.concepts.row(where.shard, record.key)}
        return Item(address=address, record=record, annotation=where.number, sidecars=sidecars)


def _looked(config: EvaluateConfig, exam: _Exam, group: Group, on_progress: OnProgress) -> Tensor:
    """Look at every expression, each rank at its share: (N, 3) peak x and y in pixels, and the best proposal or -1."""
    run, grounding = exam.run, _grounding(exam.run)
    mapper = grounding.match_maps if exam.task.config.score == "match" else grounding.contrast_maps
    view, draws = EvalView(run.processor.view.image_size), np.random.default_rng(0)
    own = shares(group, total=len(exam.expressions), size=config.batch_size)
    parts: list[Tensor] = []
    with group.together():  # a damaged picture stops every rank, with its name
        for chosen in own:
            examples = [exam.task.example(exam.item(number), view, draws) for number in chosen]
            batch = run.processor(examples, [0] * len(examples), train=False).to(group.device)
            maps = mapper(run.family, batch, layer=exam.task.config.layer)
            rows = []
            for number, found in zip(chosen, maps, strict=True):
                where = exam.expressions[number]
                height, width = where.size
                large = grounding.enlarge(found[None], height=height, width=width)[0].cpu()
                peak = divmod(int(large.argmax()), width)
                best = grounding.rank_boxes(large, [box[:4] for box in where.proposals]).best
                rows.append([peak[1], peak[0], -1 if best is None else best])
            parts.append(torch.tensor(rows, dtype=torch.long, device=group.device))
            if group.is_main:
                on_progress("maps", chosen.stop, len(exam.expressions))
    numbers = [number for chosen in own for number in chosen]
    return gather_rows(group, parts, numbers, total=len(exam.expressions)).cpu()


def _scored(
    task: GroundingTask,
    run: TrainedRun,
    expressions: Sequence[_Expression],
    rows: Tensor,
    *,
    proposed: bool,
    began: float,
) -> GroundingScores:
    """Judge peaks and chosen boxes."""
    pointing, found, any_peak, any_box = [], [], [], []
    for where, (x, y, best) in zip(expressions, rows.tolist(), strict=True):
        split, (x0, y0, width, height) = where.record.origin.split, where.truth
        pointing.append((split, float(x0 <= x < x0 + width and y0 <= y < y0 + height)))
        any_peak.append(width * height / (where.size[0] * where.size[1]))
        overlaps = [
            intersection_over_union(where.truth, box, convention=task.config.overlap) for box in where.proposals
        ]
        found.append((split, overlaps[best] if best >= 0 else 0.0))
        any_box.append(sum(overlap >= FOUND_AT for overlap in overlaps) / max(1, len(overlaps)))
    metrics = {f"pointing/{split}": value for split, value in found_by_split(pointing).items()}
    chance = _by_split([split for split, _ in pointing], any_peak, "pointing")
    if proposed:
        metrics |= {f"found/{split}": value for split, value in found_by_split(found).items()}
        chance |= _by_split([split for split, _ in found], any_box, "found")
    return GroundingScores(
        metrics=metrics,
        chance=chance,
        examples=len(expressions),
        checkpoint=str(run.checkpoint.path),
        step=run.checkpoint.step,
        seconds=time.monotonic() - began,
    )


def _by_split(splits: Sequence[str], values: Sequence[float], name: str) -> dict[str, float]:
    """Means in percent of each split, and over all."""
    means = {}
    for split in (*dict.fromkeys(splits), "all"):
        own = [value for where, value in zip(splits, values, strict=True) if split in (where, "all")]
        means[f"{name}/{split}"] = 100 * sum(own) / len(own)
    return means


def _expressions(dataset: Dataset, proposals: Mapping[str, Boxes], *, limit: int | None) -> list[_Expression]:
    """List every expression in the dataset's order, of the first `limit` records; headers only."""
    records = (
        (shard, row, record)
        for shard in range(len(dataset.shard_sizes()))
        for row, record in enumerate(dataset.records(shard, payload=False))
    )
    found = [
        _Expression(
            shard=shard,
            row=row,
            number=number,
            record=record,
            truth=widths(annotation.box),
            proposals=proposals.get(record.origin.id, ()),
        )
        for shard, row, record in islice(records, limit)
        for number, annotation in enumerate(record.annotations)
        if isinstance(annotation, Grounding)
    ]
    if not found:
        raise DatasetError(f"{dataset.path}: no expression with a box; name a dataset made by source.kind=refcoco")
    if proposals and not any(expression.proposals for expression in found):
        raise ConfigError(
            f"task.proposals: none of its pictures is in {dataset.path}; its ids must be those of the records' origin, "
            f"such as {found[0].record.origin.id!r}"
        )
    return found


def _read_proposals(path: str | None) -> dict[str, Boxes]:
    """Read {picture id: [[x, y, width, height, …], …]}; boxes without area are left out."""
    if path is None:
        return {}
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return {
            str(picture): tuple(box for box in boxes if box[2] > 0 and box[3] > 0) for picture, boxes in content.items()
        }
    except (OSError, ValueError, AttributeError, TypeError, IndexError) as error:
        raise ConfigError(
            f"task.proposals={path!r} cannot be read ({error}); give JSON of the form {{picture id: [[x, y, width, height]]}}"
        ) from error


def _grounding(run: TrainedRun) -> Any:
    """The family's module that maps texts onto pictures.

    Raises:
        ConfigError: it has none.
    """
    name = f"model.families.{run.config.family['kind']}.grounding"
    if importlib.util.find_spec(name) is None:
        raise ConfigError(
            f"family {run.config.family['kind']!r} has no maps of where a text is seen; ground with another"
        )
    return importlib.import_module(name)


def _concepts(config: EvaluateConfig, run: TrainedRun, dataset: Dataset) -> Sidecar | None:
    """Open the concepts that the model is to see: those asked for, else the column that it was trained with."""
    trained_with = [stream.concepts for stream in run.config.streams.values() if stream.concepts is not None]
    wanted = config.concepts or (trained_with[0].split("-")[0] if trained_with else None)
    return open_concepts(dataset, wanted) if wanted is not None else None


def _predictions(expressions: Sequence[_Expression], rows: Tensor) -> Iterable[dict[str, Any]]:
    for where, (x, y, best) in zip(expressions, rows.tolist(), strict=True):
        annotation = where.record.annotations[where.number]
        yield {
            "key": where.record.key,
            "annotation": where.number,
            "id": annotation.id,
            "peak": [x, y],
            "box": list(where.proposals[best][:4]) if best >= 0 else None,  # x, y, width, height
            "truth": list(where.truth),
        }


def _write(output: Path, scores: GroundingScores, predictions: Iterable[dict[str, Any]]) -> None:
    """Write both files beside and rename them, the scores last: they say that the evaluation is complete."""
    texts = {
        PREDICTIONS: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions),
        SCORES: json.dumps(scores.to_json(), indent=1) + "\n",
    }
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            unfinished = output / f".{name}-{os.getpid()}"
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(output / name)
    except OSError as error:
        raise OstrakaError(f"{output}: the scores cannot be written there ({error}); choose another output") from error
