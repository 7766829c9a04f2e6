"""Visual entailment (SNLI-VE): does a picture entail a sentence, contradict it, or leave it open?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from model.examples import Classify, Example
from shards.config import Config as BaseConfig
from shards.errors import DatasetError
from shards.reader import Dataset
from shards.records import Annotation, Entailment
from shards.stream import Item
from trainers.metrics.accuracy import accuracy
from trainers.pairing import annotation_of, concepts_of
from trainers.task import ImageView


class Config(BaseConfig):
    """The classes, in the order of their numbers."""

    kind: Literal["entailment"] = "entailment"
    classes: tuple[str, ...] = Field(default=("contradiction", "neutral", "entailment"), min_length=2)
    """labels as the annotations spell them, in the order of their numbers"""


class VisualEntailment:
    """Emits each hypothesis with its picture; the premise, a caption of it, is not shown, as published."""

    emits: ClassVar[type[Example]] = Classify
    count: ClassVar[Literal["records", "annotations"]] = "annotations"
    asks: ClassVar[type[Annotation]] = Entailment
    pictures: ClassVar[int] = 1

    def __init__(self, config: Config) -> None:
        self.classes = config.classes

    def example(self, item: Item, view: ImageView, rng: np.random.Generator) -> Classify:
        found = annotation_of(item.record, item.annotation, Entailment)
        if found.label is not None and found.label not in self.classes:
            raise DatasetError(
                f"record {item.record.key!r}: label {found.label!r} is none of {', '.join(self.classes)}; set task.classes"
            )
        return Classify(
            key=item.name,
            images=(view(item.record, rng),),
            concepts=concepts_of(item),
            text=found.hypothesis,
            label=None if found.label is None else self.classes.index(found.label),
            classes=self.classes,
        )

    def ask(self, text: str) -> Entailment:
        """A hypothesis that nobody has judged."""
        return Entailment(hypothesis=text)

    def candidates(self, datasets: Iterable[Dataset]) -> tuple[str, ...]:
        """The classes, whatever was trained on."""
        return self.classes

    def rightness(self, predicted: str, annotation: Annotation) -> float | None:
        """1 for the published label, 0 for another; `None` where it is not published."""
        if not isinstance(annotation, Entailment) or annotation.label is None:
            return None
        return float(predicted == annotation.label)

    def scores(self, predicted: Sequence[str], annotations: Sequence[Annotation]) -> Mapping[str, float]:
        """Score the predicted classes of hypotheses whose label is published."""
        labels = [each.label if isinstance(each, Entailment) else None for each in annotations]
        known = [(said, label) for said, label in zip(predicted, labels, strict=True) if label is not None]
        return accuracy([said for said, _ in known], [label for _, label in known]) if known else {}


def build(config: Config) -> VisualEntailment:
    """Build the task."""
    return VisualEntailment(config)
