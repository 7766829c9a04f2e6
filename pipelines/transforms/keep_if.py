"""Keep the media that are large, long and square enough, and the annotations of a sensible length and language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from pydantic import Field, NonNegativeInt, PositiveInt

from pipelines.annotation_texts import leading_text
from pipelines.transform import Thinned
from shards.config import Config as BaseConfig
from shards.errors import MissingLibraryError
from shards.records import Annotation, Media, Record, Reject


class Config(BaseConfig):
    """Whatever is not set does not filter. Sizes are as displayed, in pixels; words are those of an annotation's leading text."""

    min_side: NonNegativeInt = 0
    """Shortest allowed side of a picture or clip."""
    max_aspect: float | None = Field(default=None, ge=1)
    """Largest allowed ratio of the longer to the shorter side."""
    min_seconds: float = Field(default=0.0, ge=0)
    """Shortest allowed clip or sound."""
    max_seconds: float | None = Field(default=None, gt=0)
    """Longest allowed clip or sound."""
    min_words: NonNegativeInt = 0
    """Annotations with fewer words are dropped; an item without any annotation left goes with them."""
    max_words: PositiveInt | None = None
    """Annotations with more words are dropped."""
    languages: tuple[str, ...] = ()
    """Annotations whose text is found to be in another language are dropped; ISO 639-1 codes such as `en`. Single words are
    hard to tell, so combine it with `min_words`."""


class KeepIf:
    """Every loss is a reject with the reason `filtered`, which does not count against the reject budget."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, record: Record) -> Record | Thinned | Reject:
        objections = (self._media_objection(media) for media in record.media)
        if objection := next((found for found in objections if found), None):
            return Reject(id=record.origin.id, reason="filtered", detail=objection)
        kept: list[Annotation] = []
        rejects: list[Reject] = []
        for number, annotation in enumerate(record.annotations):
            objection = self._text_objection(leading_text(annotation))
            if objection is None:
                kept.append(annotation)
                continue
            id = annotation.id or f"{record.origin.id}#{number}"
            rejects.append(Reject(id=id, reason="filtered", detail=objection, level="annotation"))
        return Thinned(record=replace(record, annotations=tuple(kept)), rejects=tuple(rejects)) if rejects else record

    def _media_objection(self, media: Media) -> str | None:
        if media.width is not None and media.height is not None:
            short, long = sorted((media.width, media.height))
            if short < self._config.min_side:
                return f"{media.width}x{media.height} pixels; min_side is {self._config.min_side}"
            if self._config.max_aspect is not None and long > self._config.max_aspect * short:
                return f"{media.width}x{media.height} pixels; max_aspect is {self._config.max_aspect:g}"
        if media.duration_s is not None:
            if media.duration_s < self._config.min_seconds:
                return f"{media.duration_s:.2f} s; min_seconds is {self._config.min_seconds:g}"
            if self._config.max_seconds is not None and media.duration_s > self._config.max_seconds:
                return f"{media.duration_s:.2f} s; max_seconds is {self._config.max_seconds:g}"
        return None

    def _text_objection(self, text: str | None) -> str | None:
        if text is None:
            return None
        words = len(text.split())
        if words < self._config.min_words:
            return f"{words} words; min_words is {self._config.min_words}"
        if self._config.max_words is not None and words > self._config.max_words:
            return f"{words} words; max_words is {self._config.max_words}"
        if self._config.languages and (language := _identifier()(text)) not in self._config.languages:
            return f"it seems to be {language!r}; languages are {', '.join(self._config.languages)}"
        return None


@cache
def _identifier() -> Callable[[str], str]:
    """Text to language code; loaded once per process, because the model takes a second to load."""
    try:
        import py3langid
    except ImportError as problem:
        raise MissingLibraryError(
            "keep_if.languages needs py3langid: install the extra, ostraka[language]"
        ) from problem
    return lambda text: str(py3langid.classify(text)[0])


def build(config: Config) -> KeepIf:
    if config.languages:
        _identifier()  # a missing library must show before the first unit, not inside it
    return KeepIf(config)
