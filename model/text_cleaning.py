"""Cleaning of captions and questions as the published models of this line were trained."""

from __future__ import annotations

import re

_DROPPED = str.maketrans("", "", ",.'!?\"()*#:;~")
_SPACED = str.maketrans("-/", "  ")
_RUNS = re.compile(r"\s{2,}")  # a single tab or line break stays, as in the published cleaning


def clean_caption(text: str, *, max_words: int = 30) -> str:
    """Lower-case, drop punctuation, join runs of white space, keep the first words.

    Args:
        text: any caption.
        max_words: pieces between single spaces that are kept.
    """
    cleaned = text.lower().translate(_DROPPED).translate(_SPACED).replace("<person>", "person")
    cleaned = _RUNS.sub(" ", cleaned).rstrip("\n").strip(" ")
    return " ".join(cleaned.split(" ")[:max_words])


def clean_question(text: str, *, max_words: int = 50) -> str:
    """Lower-case, drop punctuation, keep the first words; double spaces stay and count as (empty) words.

    Args:
        text: any question.
        max_words: pieces between single spaces that are kept; published: 30 in training, 50 in tests.
    """
    cleaned = text.lower().translate(_DROPPED).translate(_SPACED).rstrip(" ")
    return " ".join(cleaned.split(" ")[:max_words])
