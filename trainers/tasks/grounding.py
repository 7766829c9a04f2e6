"""Referring expressions (RefCOCO, RefCOCO+): trained on as texts of their picture, tested by where the model looks.

No box is ever shown to the model: training is retrieval with expressions for captions. An evaluation maps where each
expression is seen, and lets the map choose among proposed boxes where there are any.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import NonNegativeInt

from model.examples import Example, Paired
from shards.config import Config as BaseConfig
from shards.records import Caption, Grounding
from shards.stream import Item
from trainers.metrics.referring import Convention
from trainers.pairing import annotation_of, caption_of, concepts_of, identity_of
from trainers.task import ImageView


class Config(BaseConfig):
    """How an evaluation looks; training needs none of it."""

    kind: Literal["grounding"] = "grounding"
    proposals: str | None = None
    """a JSON file of detected boxes, {picture id: [[x, y, width, height, …], …]} in pixels, such as MAttNet's dets.json"""
    score: Literal["match", "contrast"] = "match"
    """what the map explains: the match logit by cross attention, or the contrast's similarity by the picture's own"""
    layer: NonNegativeInt | None = None
    """whose attention is mapped; unset: the third layer that reads pictures, or the picture tower's last"""
    overlap: Convention = "inclusive_pixels"
    """how boxes are compared; the papers count pixels inclusively"""


class GroundingTask:
    """Emits each expression with its picture; expressions of one picture are no negatives of one another.

    A caption is an expression without a box: it can be trained on and mapped, and judged by nothing.
    """

    emits: ClassVar[type[Example]] = Paired
    count: ClassVar[Literal["records", "annotations"]] = "annotations"

    def __init__(self, config: Config) -> None:
        self.config = config

    def example(self, item: Item, view: ImageView, rng: np.random.Generator) -> Paired:
        return Paired(
            key=item.name,
            images=(view(item.record, rng),),
            concepts=concepts_of(item),
            text=_expression(item),
            identity=identity_of(item.record),
        )


def _expression(item: Item) -> str:
    annotations = item.record.annotations
    if annotations and isinstance(annotations[item.annotation or 0], Caption):
        return caption_of(item.record, item.annotation).text
    return annotation_of(item.record, item.annotation, Grounding).text


def build(config: Config) -> GroundingTask:
    """Build the task."""
    return GroundingTask(config)
