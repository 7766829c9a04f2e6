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

    def candidates(self, datasets: Iterable[Dataset]) -> tuple[str, ...]:
        """False and true."""
        return TRUTH

    def scores(self, predicted: Sequence[str], annotations: Sequence[Annotation]) -> Mapping[str, float]:
        """Score the predicted truth; empty where the labels are not published."""
        labels = [each.label for each in annotations if isinstance(each, Statement) and each.label is not None]
        return accuracy(predicted, [TRUTH[label] for label in labels]) if len(labels) == len(annotations) else {}


def build(config: Config) -> StatementTask:
    """Build the task."""
    return StatementTask()
