"""Put the texts of annotations into one spelling of Unicode, without control characters and stray white space.

What a model family wants of a text beyond that (case, punctuation, length) is the family's own, and is done when it reads.
"""

from __future__ import annotations

import html
import unicodedata
from dataclasses import replace

from pipelines.annotation_texts import with_texts
from pipelines.transform import Thinned
from shards.config import Config as BaseConfig
from shards.records import Annotation, Record, Reject

# Control, format (zero-width joiners are kept: they shape emoji and several scripts), private use and unassigned.
_DROPPED_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cn"})
_KEPT = frozenset("\u200c\u200d")


class Config(BaseConfig):
    unescape_html: bool = False
    """Turn `&amp;` and its like into the characters they stand for; for texts scraped from the web."""


class CleanText:
    """Annotations whose text is left empty are rejected by name."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, record: Record) -> Record | Thinned:
        kept: list[Annotation] = []
        rejects: list[Reject] = []
        for number, annotation in enumerate(record.annotations):
            cleaned = with_texts(annotation, self._clean)
            if cleaned is not None:
                kept.append(cleaned)
                continue
            rejects.append(
                Reject(
                    id=annotation.id or f"{record.origin.id}#{number}",
                    reason="empty_text",
                    detail="clean_text left nothing of it",
                    level="annotation",
                )
            )
        thinner = replace(record, annotations=tuple(kept))
        return Thinned(record=thinner, rejects=tuple(rejects)) if rejects else thinner

    def _clean(self, text: str) -> str:
        return clean(html.unescape(text) if self._config.unescape_html else text)


def clean(text: str) -> str:
    """NFC, no control characters, every run of white space one space, none at the ends."""
    spaced = "".join(" " if character.isspace() else character for character in unicodedata.normalize("NFC", text))
    visible = "".join(
        character
        for character in spaced
        if character in _KEPT or unicodedata.category(character) not in _DROPPED_CATEGORIES
    )
    return " ".join(visible.split()).strip("".join(_KEPT))


def build(config: Config) -> CleanText:
    return CleanText(config)
