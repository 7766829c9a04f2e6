"""Keep the pictures that are large and square enough, and the captions of a sensible length."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, NonNegativeInt, PositiveInt

from pipelines.transform import Thinned
from shards.config import Config as BaseConfig
from shards.records import Annotation, Caption, Record, Reject


class Config(BaseConfig):
    """Whatever is not set does not filter. Sizes are as displayed, in pixels."""

    min_side: NonNegativeInt = 0
    """Shortest allowed side of a picture."""
    max_aspect: float | None = Field(None, ge=1)
    """Largest allowed ratio of the longer to the shorter side."""
    min_words: NonNegativeInt = 0
    """Captions with fewer words are dropped; a picture without any caption left goes with them."""
    max_words: PositiveInt | None = None
    """Captions with more words are dropped."""


class KeepIf:
    """Every loss is a reject with the reason `filtered`, which does not count against the reject budget."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, record: Record) -> Record | Thinned | Reject:
        if objection := self._picture_objection(record):
            return Reject(id=record.origin.id, reason="filtered", detail=objection)
        kept: list[Annotation] = []
        rejects: list[Reject] = []
        for number, annotation in enumerate(record.annotations):
            objection = self._caption_objection(annotation)
            if objection is None:
                kept.append(annotation)
                continue
            id = annotation.id or f"{record.origin.id}#{number}"
            rejects.append(Reject(id=id, reason="filtered", detail=objection, level="annotation"))
        return Thinned(record=replace(record, annotations=tuple(kept)), rejects=tuple(rejects)) if rejects else record

    def _picture_objection(self, record: Record) -> str | None:
        for media in record.media:
            if media.width is None or media.height is None:
                continue
            short, long = sorted((media.width, media.height))
            if short < self._config.min_side:
                return f"{media.width}x{media.height} pixels; min_side is {self._config.min_side}"
            if self._config.max_aspect is not None and long > self._config.max_aspect * short:
                return f"{media.width}x{media.height} pixels; max_aspect is {self._config.max_aspect:g}"
        return None

    def _caption_objection(self, annotation: Annotation) -> str | None:
        if not isinstance(annotation, Caption):
            return None
        words = len(annotation.text.split())
        if words < self._config.min_words:
            return f"{words} words; min_words is {self._config.min_words}"
        if self._config.max_words is not None and words > self._config.max_words:
            return f"{words} words; max_words is {self._config.max_words}"
        return None


def build(config: Config) -> KeepIf:
    return KeepIf(config)
