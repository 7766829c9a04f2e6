"""Fine-tuning for retrieval: all captions of one picture share its identity, so none of them is a negative of another."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from model.examples import Example, Paired
from shards.config import Config as BaseConfig
from shards.stream import Item
from trainers.pairing import identity_of, pair
from trainers.task import ImageView


class Config(BaseConfig):
    """Which negatives are mixed in."""

    kind: Literal["retrieval"] = "retrieval"
    wrong_share: float = Field(0.5, ge=0, le=1)
    """of the pairs whose stream has `negatives`: how many match a wrong caption of their own in place of one from the batch"""


class Retrieval:
    """Emits pairs that know their picture; the contrastive targets spread over all columns of the same identity."""

    emits: ClassVar[type[Example]] = Paired
    count: ClassVar[Literal["records", "annotations"]] = "annotations"

    def __init__(self, config: Config) -> None:
        self.config = config

    def example(self, item: Item, view: ImageView, rng: np.random.Generator) -> Paired:
        return pair(item, view, rng, identity=identity_of(item.record), wrong_share=self.config.wrong_share)


def build(config: Config) -> Retrieval:
    """Build the task."""
    return Retrieval(config)
