"""What a model is examined on: the annotations of a dataset in their order, each made into an example when its turn comes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from model.examples import Example
from shards.address import Address
from shards.errors import DatasetError
from shards.reader import Dataset
from shards.records import Annotation, Record
from shards.sidecar import Sidecar
from shards.stream import Item
from trainers.arrival import Deferred
from trainers.assembly import TrainedRun, open_concepts
from trainers.augment import EvalView
from trainers.config import AskConfig
from trainers.distributed import Group
from trainers.gather import shares
from trainers.pairing import CONCEPTS
from trainers.shelf import Notes, Shelf
from trainers.stopwatch import Stopwatch
from trainers.task import Task

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], object]  # stage, done, of how many


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody how far an exam is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one annotation lies, and what it says."""

    shard: int
    row: int
    number: int
    record: Record  # header only

    @property
    def key(self) -> str:
        return self.record.key

    @property
    def annotation(self) -> Annotation:
        return self.record.annotations[self.number]


def list_places(shelf: Shelf, kinds: tuple[type[Annotation], ...], *, limit: int | None) -> tuple[Place, ...]:
    """List every annotation of some kinds in the shelf's order, of the first `limit` records; headers only.

    Raises:
        DatasetError: there is none; says what there is.
    """
    records = (
        (shard, row, record)
        for shard in range(len(shelf.shard_sizes()))
        for row, record in enumerate(shelf.records(shard, payload=False))
    )
    found: list[Place] = []
    others: set[str] = set()
    for shard, row, record in islice(records, limit):
        others |= {each.type for each in record.annotations if not isinstance(each, kinds)}
        found += [
            Place(shard=shard, row=row, number=number, record=record)
            for number, each in enumerate(record.annotations)
            if isinstance(each, kinds)
        ]
    if not found:
        wanted = " or ".join(f"{kind.type}s" for kind in kinds)
        has = f"{', '.join(sorted(others))} annotations" if others else "no annotations"
        raise DatasetError(
            f"{shelf.path}: holds {has} and not one of the {wanted} that this run is about; name a dataset made from "
            f"{wanted}, or annotations=… a column of them"
        )
    return tuple(found)


class Exam:
    """The examples of an exam, in order; a picture is read and resized once for all its annotations in a row."""

    def __init__(self, shelf: Shelf, concepts: Notes | None, task: Task, places: Sequence[Place]) -> None:
        self.task = task
        self.places = places
        self._shelf = shelf
        self._concepts = concepts
        self._record: tuple[tuple[int, int], Record] | None = None

    def __len__(self) -> int:
        return len(self.places)

    def examples(self, chosen: Sequence[int], view: Remembering) -> list[Example]:
        """Make some examples.

        Raises:
            DamagedRecordError: a picture cannot be read; an exam has no reserve for it.
        """
        draws = np.random.default_rng(0)  # an evaluation view draws nothing; the signature asks for a generator
        return [self.task.example(self._item(self.places[number]), view, draws) for number in chosen]

    def _item(self, place: Place) -> Item:
        where = (place.shard, place.row)
        if self._record is None or self._record[0] != where:
            self._record = where, self._shelf.record(*where)
        address = Address(source="", shard=place.shard, item=place.row, epoch=0, position=0)
        sidecars = {} if self._concepts is None else {CONCEPTS: self._concepts.row(place.shard, place.key)}
        return Item(address=address, record=self._record[1], annotation=place.number, sidecars=sidecars)


class Remembering:
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
class Crew:
    """Who goes through an exam, and who is told how far they are."""

    group: Group
    on_progress: OnProgress = silent

    def say(self, stage: str, done: int, total: int) -> None:
        """Tell how far this rank is; only the first one's word is passed on."""
        if self.group.is_main:
            self.on_progress(stage, done, total)

    def share(self, chosen: range, *, size: int) -> tuple[range, ...]:
        """This rank's part of some numbers, in chunks of `size`; see `shares`."""
        own = shares(self.group, total=len(chosen), size=size)
        return tuple(range(chosen.start + part.start, chosen.start + part.stop) for part in own)


def shown_concepts(config: AskConfig, run: TrainedRun, dataset: Dataset) -> Sidecar | None:
    """Open the concepts that the model is to see: those asked for, else the column that it was trained with."""
    wanted = config.concepts or trained_concepts(run)
    if wanted is None:
        tell_of_missing_concepts(run, "name a column by concepts=…, as `python -m jobs concepts` makes it")
    return open_concepts(dataset, wanted) if wanted is not None else None


def tell_of_missing_concepts(run: TrainedRun, advice: str) -> None:
    """Warn where a model reads concepts and is shown none: it then sees pictures as it never did in training."""
    if run.config.family.get("concepts") is not None:
        logger.warning("%s: its model reads concepts and none are shown: %s", run.checkpoint.path, advice)


def trained_concepts(run: TrainedRun) -> str | None:
    """The column of concepts that a run was trained with, by name; `None` where it saw none."""
    seen = [stream.concepts for stream in run.config.streams.values() if stream.concepts is not None]
    return seen[0].split("-")[0] if seen else None


def mixed_precision(config: AskConfig, device: torch.device) -> AbstractContextManager[object]:
    """Compute in bfloat16 where the config says so."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if config.precision == "bf16" else nullcontext()
