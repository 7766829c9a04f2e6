"""Captions cut into words as the COCO caption evaluation cuts them, without Java.

That evaluation runs the Penn Treebank tokenizer of Stanford's parser, lower-cases, and drops punctuation. Its rules are
followed here as far as captions show them: contractions are parted, abbreviations, prices, times and hyphens stay whole.
"""

from __future__ import annotations

import re

_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
# Brackets stay as their names: the evaluation drops them in capitals, but has lower-cased them by then.
_DROPPED = frozenset(["'", "`", "''", "``", ".", "?", "!", ",", ":", "-", "--", "...", ";", '"'])
_TYPOGRAPHY = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "—": "-", "–": "-", "…": "."})
_TOKEN = re.compile(
    r"""
    \d+(?:[.,:/]\d+)+                      # prices, times, dates
    | (?:[^\W\d_]\.){2,}                   # a.m., u.s.
    | (?:mr|mrs|ms|dr|st|jr|sr|prof|vs)\.  # titles
    | \w+(?:[-'.&]\w+)*                    # words, with what stands inside them
    | \S                                   # any other sign by itself
    """,
    re.VERBOSE,
)
_CLITIC = re.compile(r"(.+)(n't|'s|'re|'ve|'ll|'d|'m)")
_FUSED = {"cannot": ("can", "not"), "gonna": ("gon", "na"), "gotta": ("got", "ta"), "wanna": ("wan", "na")}


def caption_tokens(text: str) -> list[str]:
    """Cut a caption into lower-case words without punctuation."""
    tokens: list[str] = []
    for match in _TOKEN.finditer(text.translate(_TYPOGRAPHY).lower()):
        tokens += _parts(match[0])
    return [token for token in tokens if token not in _DROPPED]


def _parts(word: str) -> list[str]:
    if word in _BRACKETS:
        return [_BRACKETS[word]]
    if word in _FUSED:
        return list(_FUSED[word])
    clitic = _CLITIC.fullmatch(word)
    return [*_parts(clitic[1]), clitic[2]] if clitic else [word]
