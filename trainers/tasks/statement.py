"""Statements about two pictures, true or false (NLVR2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np

from model.examples import Compare, Example
from shards.config import Config as BaseConfig
from shards.reader import Dataset
from shards.records import Annotation, Statement
from shards.stream import Item
from trainers.metrics.accuracy import accuracy
from trainers.pairing import annotation_of, concepts_of, second_concepts_of
from trainers.task import ImageView

TRUTH = ("False", "True")  # as the dataset writes them, in the order of the labels


class Config(BaseConfig):
    """Nothing to choose yet."""

    kind: Literal["statement"] = "statement"


class StatementTask:
    """Emits each statement with both pictures of its record, each shown by draws of its own."""

    emits: ClassVar[type[Example]] = Compare
    count: ClassVar[Literal["records", "annotations"]] = "annotations"
    asks: ClassVar[type[Annotation]] = Statement
    pictures: ClassVar[int] = 2

    def example(self, item: Item, view: ImageView, rng: np.random.Generator) -> Compare:
        found = annotation_of(item.record, item.annotation, Statement)
        return Compare(
            key=item.name,
            images=(view(item.record, rng, position=0), view(item.record, rng, position=1)),
            concepts=concepts_of(item),
            second_concepts=second_concepts_of(item),
            text=found.text,
            label=found.label,
        )

    def ask(self, text: str) -> Statement:
        """A statement that nobody has judged."""
        return Statement(text=text)

    def candidates(self, datasets: Iterable[Dataset]) -> tuple[str, ...]:
        """False and true."""
        return TRUTH

    def rightness(self, predicted: str, annotation: Annotation) -> float | None:
        """1 for the published label, 0 for another; `None` where it is not published."""
        if not isinstance(annotation, Statement) or annotation.label is None:
            return None
        return float(predicted == TRUTH[annotation.label])

    def scores(self, predicted: Sequence[str], annotations: Sequence[Annotation]) -> Mapping[str, float]:
        """Score the predicted truth of statements whose label is published."""
        labels = [each.label if isinstance(each, Statement) else None for each in annotations]
        known = [(said, TRUTH[label]) for said, label in zip(predicted, labels, strict=True) if label is not None]
        return accuracy([said for said, _ in known], [label for _, label in known]) if known else {}


def build(config: Config) -> StatementTask:
    """Build the task."""
    return StatementTask()
