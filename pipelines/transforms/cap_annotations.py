"""Keep at most so many annotations of an item: Visual Genome has a hundred regions of a picture, web pages a hundred captions."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Literal

from pydantic import PositiveInt

from pipelines.transform import Thinned
from shards.config import Config as BaseConfig
from shards.config import digest
from shards.records import Record, Reject


class Config(BaseConfig):
    most: PositiveInt
    """How many annotations an item keeps."""
    choose: Literal["first", "random"] = "first"
    """The first ones of the raw file, or a random choice that depends on nothing but the seed and the record's key."""
    seed: int = 0
    """Of the random choice."""


class CapAnnotations:
    """What is left out is rejected as `filtered`; what is kept stays in its order."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, record: Record) -> Record | Thinned:
        count = len(record.annotations)
        if count <= self._config.most:
            return record
        places = range(self._config.most)
        chosen = set(places) if self._config.choose == "first" else set(self._sample(record.key, count))
        kept = tuple(annotation for place, annotation in enumerate(record.annotations) if place in chosen)
        detail = f"{count} annotations; cap_annotations keeps {self._config.most}"
        rejects = tuple(
            Reject(
                id=annotation.id or f"{record.origin.id}#{place}", reason="filtered", detail=detail, level="annotation"
            )
            for place, annotation in enumerate(record.annotations)
            if place not in chosen
        )
        return Thinned(record=replace(record, annotations=kept), rejects=rejects)

    def _sample(self, key: str, count: int) -> list[int]:
        # A generator of its own for every record: the choice is the same in whichever order and process records are read.
        generator = random.Random(digest({"seed": self._config.seed, "key": key}))
        return generator.sample(range(count), self._config.most)


def build(config: Config) -> CapAnnotations:
    return CapAnnotations(config)
