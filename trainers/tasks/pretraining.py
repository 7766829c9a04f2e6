"""Pretraining on image-caption pairs: every pair is its own."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from model.examples import Example, Paired
from shards.config import Config as BaseConfig
from shards.stream import Item
from trainers.pairing import pair
from trainers.task import ImageView


class Config(BaseConfig):
    """Nothing to choose yet."""

    kind: Literal["pretraining"] = "pretraining"


class Pretraining:
    """Emits each caption of a picture as a pair of its own; an epoch visits each image-caption pair once."""

    emits: ClassVar[type[Example]] = Paired
    count: ClassVar[Literal["records", "annotations"]] = "annotations"

    def example(self, item: Item, view: ImageView, rng: np.random.Generator) -> Paired:
        return pair(item, view, rng)


def build(config: Config) -> Pretraining:
    """Build the task."""
    return Pretraining()
