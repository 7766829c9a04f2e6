"""Fine-tuning for retrieval: all captions of one picture share its identity, so none of them is a negative of another."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from model.examples import Example, Paired
from shards.config import Config as BaseConfig
from shards.stream import Item
from trainers.pairing import identity_of, pair
from trainers.task import ImageView


class Config(BaseConfig):
    """Nothing to choose yet."""

    kind: Literal["retrieval"] = "retrieval"


class Retrieval:
    """Emits pairs that know their picture; the contrastive targets spread over all columns of the same identity."""

    emits: ClassVar[type[Example]] = Paired
    count: ClassVar[Literal["records", "annotations"]] = "annotations"

    def example(self, item: Item, view: ImageView, rng: np.random.Generator) -> Paired:
        return pair(item, view, rng, identity=identity_of(item.record))


def build(config: Config) -> Retrieval:
    """Build the task."""
    return Retrieval()
