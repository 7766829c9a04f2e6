"""Pretraining on image-caption pairs: every pair is its own."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from model.examples import Example, Paired
from shards.config import Config as BaseConfig
from shards.stream import Item
from trainers.pairing import pair
from trainers.task import ImageView


class Config(BaseConfig):
    """Which negatives are mixed in."""

    kind: Literal["pretraining"] = "pretraining"
    wrong_share: float = Field(0.5, ge=0, le=1)
    """of the pairs whose stream has `negatives`: how many match a wrong caption of their own in place of one from the batch"""


class Pretraining:
    """Emits each caption of a picture as a pair of its own; an epoch visits each image-caption pair once."""

    emits: ClassVar[type[Example]] = Paired
    count: ClassVar[Literal["records", "annotations"]] = "annotations"

    def __init__(self, config: Config) -> None:
        self.config = config

    def example(self, item: Item, view: ImageView, rng: np.random.Generator) -> Paired:
        return pair(item, view, rng, wrong_share=self.config.wrong_share)


def build(config: Config) -> Pretraining:
    """Build the task."""
    return Pretraining(config)
