"""The contract of a task: which examples it makes of a record, and what it asks of the loader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from model.examples import Example
from shards.reader import Dataset
from shards.records import Annotation, Record
from shards.stream import Count, Item
from trainers.arrival import Deferred
from trainers.stopwatch import Stopwatch


class ImageView(Protocol):
    """How a picture is shown: decoded, cropped and resized to what the family wants to see."""

    @property
    def stopwatch(self) -> Stopwatch:
        """Counts the seconds of decoding and augmenting."""
        ...

    def take_deferred(self) -> Deferred:
        """Give what is still to be done, on the device, to the pictures shown since the last call, and forget it."""
        ...

    def __call__(self, record: Record, rng: np.random.Generator, *, position: int = 0) -> Tensor:
        """Show the record's picture number `position`: (3, R, R) uint8.

        Raises:
            DamagedRecordError: the picture cannot be decoded; the loader then takes the slot's reserve.
        """
        ...


class Task(Protocol):
    """One file in `trainers/tasks/`, whose name is the kind: it knows data, and nothing of tensors but pictures."""

    @property
    def emits(self) -> type[Example]:
        """The kind of example; the family must serve it."""
        ...

    @property
    def count(self) -> Count:
        """What an epoch visits once: records, or each of their annotations."""
        ...

    def example(self, item: Item, view: ImageView, rng: np.random.Generator) -> Example:
        """Make one example, keyed by `item.name`; every random choice comes from `rng`, which is keyed by it, too."""
        ...


@runtime_checkable
class RankedTask(Task, Protocol):
    """A task whose examples are answered by ranking candidates."""

    @property
    def asks(self) -> type[Annotation]:
        """The kind of annotation that an example is made of."""
        ...

    @property
    def pictures(self) -> int:
        """How many pictures an example is about."""
        ...

    def ask(self, text: str) -> Annotation:
        """What a record holds where somebody asks `text` of its pictures, and nobody knows the answer."""
        ...

    def candidates(self, datasets: Iterable[Dataset]) -> tuple[str, ...]:
        """What to choose from; `datasets` are those that were trained on."""
        ...

    def rightness(self, predicted: str, annotation: Annotation) -> float | None:
        """How right one prediction is, 0 to 1; `None` where the truth is not published."""
        ...

    def scores(self, predicted: Sequence[str], annotations: Sequence[Annotation]) -> Mapping[str, float]:
        """Score one prediction per annotation, of those whose truth is published; empty where none is."""
        ...


@runtime_checkable
class SubmittedTask(Protocol):
    """A task that a public server scores on a split without truth."""

    def submission(self, predicted: Sequence[str], annotations: Sequence[Annotation]) -> str:
        """Write the file that the server takes.

        Raises:
            DatasetError: an annotation has no id, or an id comes twice: the server would refuse the file.
        """
        ...
