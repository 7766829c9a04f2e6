"""The wrong captions of a picture: those of other pictures that come nearest to it, and its own with a few words exchanged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from jobs.report.learned import HardCaption, Learned, SwappedCaption
from jobs.report.markup import Markup, join, tag
from jobs.report.overlays import clipped
from jobs.report.pictures import annotation_text
from shards.records import Annotation

MOST_WRONG = 4  # of each sort
_LONGEST = 300  # letters of one caption
_PIECE = re.compile(r"\w+|\W+")


def wrong_captions(learned: Learned, annotations: Sequence[Annotation]) -> Markup | None:
    """Write the wrong captions of a record; None where no column has any."""
    parts = [*_hard(learned.hard), *_swapped(learned.swaps, annotations)]
    return tag("div", *parts, class_="wrong-captions") if parts else None


def marked_exchange(right: str, wrong: str) -> Markup:
    """Write a wrong caption with the words that went struck out beside those that came."""
    before, after = _PIECE.findall(right), _PIECE.findall(wrong)
    pieces: list[Markup | str] = []
    for kind, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        gone, come = "".join(before[i:j]), "".join(after[k:m])
        if kind == "equal":
            pieces.append(come)
            continue
        pieces.append(tag("del", gone) if gone.strip() else gone)
        if come:
            pieces += [" " if gone.strip() else "", tag("ins", come)]
    return join(pieces)


def _hard(captions: Sequence[HardCaption]) -> list[Markup]:
    if not captions:
        return []
    low, best = captions[-1].score, captions[0].score
    bars = [
        tag(
            "li",
            tag("span", clipped(each.text, _LONGEST), title=f"a caption of {each.source}"),
            tag("span", f"{each.score:.2f}", class_="score"),
            style=f"--share:{100 * (0.08 + 0.92 * (each.score - low) / (best - low) if best > low else 1.0):.0f}%",
        )
        for each in captions[:MOST_WRONG]
    ]
    rest = f" · {MOST_WRONG} of {len(captions)}" if len(captions) > MOST_WRONG else ""
    return [
        tag("p", tag("b", "nearest captions of others"), rest),
        tag("ul", *bars, class_="answers", aria_label="Nearest captions of other pictures with their cosines"),
    ]


def _swapped(swaps: Sequence[SwappedCaption], annotations: Sequence[Annotation]) -> list[Markup]:
    shown = [each for each in swaps if each.annotation < len(annotations)]
    if not shown:
        return []
    rest = f" · {MOST_WRONG} of {len(shown)}" if len(shown) > MOST_WRONG else ""
    lines = [
        tag(
            "li",
            marked_exchange(
                clipped(annotation_text(annotations[each.annotation]), _LONGEST), clipped(each.text, _LONGEST)
            ),
            " ",
            tag("span", each.kind.replace("_", " "), class_="verdict open"),
        )
        for each in shown[:MOST_WRONG]
    ]
    return [tag("p", tag("b", "made wrong by an exchange"), rest), tag("ul", *lines, class_="swaps")]
