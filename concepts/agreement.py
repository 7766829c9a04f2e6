"""How far the chosen concepts agree with what people wrote: a figure for a result line, without any label."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from concepts.vocabulary import singulars


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Shares in [0, 1] of a picture's best concepts that its captions name.

    Attributes:
        own: in the picture's own captions.
        other: in the captions of another picture, which is what choosing blindly (but with the same habits) would reach.
        pictures: how many pictures were compared.
    """

    own: float
    other: float
    pictures: int


def caption_agreement(
    concepts: Sequence[Sequence[str]], nouns: Sequence[Collection[str]], *, vocabulary: Collection[str], top: int = 5
) -> Agreement | None:
    """Compare the `top` best concepts of each picture with the nouns of captions.

    Args:
        concepts: best first, one sequence per picture.
        nouns: the nouns of each picture's captions, as found (plurals too).
        vocabulary: all concepts, to read a plural as its singular where that one is a concept.
        top: concepts looked at per picture.

    Returns:
        None where fewer than two pictures have captions with nouns.
    """
    known = frozenset(vocabulary)
    pairs = [
        (chosen[:top], {_as_concept(noun, known) for noun in named})
        for chosen, named in zip(concepts, nouns, strict=True)
        if chosen and named
    ]
    if len(pairs) < 2:
        return None
    shift = len(pairs) // 2  # half-way round, so that neighbours in the data are not compared
    own = [_share(chosen, named) for chosen, named in pairs]
    other = [_share(chosen, pairs[(place + shift) % len(pairs)][1]) for place, (chosen, _) in enumerate(pairs)]
    return Agreement(own=sum(own) / len(own), other=sum(other) / len(other), pictures=len(pairs))


def _as_concept(noun: str, known: frozenset[str]) -> str:
    return noun if noun in known else next((form for form in singulars(noun) if form in known), noun)


def _share(chosen: Sequence[str], named: set[str]) -> float:
    return sum(phrase in named for phrase in chosen) / len(chosen)
