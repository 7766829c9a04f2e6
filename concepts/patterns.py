"""What a caption says, read off the classes of its words: heads of noun runs, attribute and noun, subject, relation and object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from concepts.lexicon import Guess, is_word

PhraseKind = Literal["noun", "attribute", "relation"]

# Of a verb group only the part that says something joins a relation: "is being ridden by" is "ridden by".
_AUXILIARIES = frozenset({
    "is", "are", "was", "were", "be", "been", "being", "am", "has", "have", "had", "having", "do", "does", "did", "doing",
    "can", "could", "will", "would", "may", "might", "must",
})  # fmt: skip
_NO_RELATIONS = frozenset({"of", "to", "than", "as", "like", "about", "for"})  # alone between nouns: "cup of coffee"
_WORDS_OF_A_RELATION = 3  # "standing next to"; longer ones are clauses of their own
_GAP = 8  # words between two nouns that may belong to one relation, articles and adjectives of the second among them


@dataclass(frozen=True, slots=True)
class NounRun:
    """Adjectives and nouns that stand together: "small red fire truck"."""

    start: int
    head: int
    attributes: tuple[int, ...]


def find_phrases(words: Sequence[str], classes: Sequence[Guess], kinds: Sequence[PhraseKind]) -> list[str]:
    """List the phrases of one caption, nouns first, then attributes, then relations; repeats are kept.

    Args:
        words: the caption's tokens in lower case, punctuation among them.
        classes: the class of each.
        kinds: which phrases are wanted.
    """
    runs = list(noun_runs(words, classes))
    found: list[str] = []
    if "noun" in kinds:
        found += [words[run.head] for run in runs]
    if "attribute" in kinds:
        found += [f"{words[place]} {words[run.head]}" for run in runs for place in run.attributes]
    if "relation" in kinds:
        found += _relations(words, classes, runs)
    return found


def noun_runs(words: Sequence[str], classes: Sequence[Guess]) -> Iterator[NounRun]:
    """Find what a caption names, in order; arguments as for `find_phrases`."""
    start: int | None = None
    adjectives: list[int] = []
    for place, (word, kind) in enumerate(zip(words, classes, strict=True)):
        if kind == "noun":
            start = place if start is None else start
            ends = place + 1 == len(words) or classes[place + 1] != "noun"
            if ends:
                if len(word) > 1 and is_word(word):
                    yield NounRun(adjectives[0] if adjectives else start, place, tuple(adjectives))
                start, adjectives = None, []
        elif kind == "adjective" and is_word(word):
            adjectives.append(place)
        elif not (word in ("and", ",") and classes[place + 1 : place + 2] == ["adjective"]):  # "a black and white cat"
            adjectives = []


def _relations(words: Sequence[str], classes: Sequence[Guess], runs: Sequence[NounRun]) -> Iterator[str]:
    for subject, places, other in relations(words, classes, runs):
        yield f"{words[subject.head]} {' '.join(words[place] for place in places)} {words[other.head]}"


def relations(
    words: Sequence[str], classes: Sequence[Guess], runs: Sequence[NounRun]
) -> Iterator[tuple[NounRun, tuple[int, ...], NounRun]]:
    """Find what joins neighbouring nouns: the one, the places of the words that say how, the other."""
    for subject, other in pairwise(runs):
        between = range(subject.head + 1, other.start)
        if not 1 <= len(between) <= _GAP or any(not is_word(words[place]) for place in between):
            continue  # punctuation: another clause
        told = tuple(
            place for place in between if classes[place] in ("verb", "preposition") and words[place] not in _AUXILIARIES
        )
        joined = any(words[place] in ("and", "or", "but", "while") for place in between)
        if (
            told
            and not joined
            and len(told) <= _WORDS_OF_A_RELATION
            and (len(told) > 1 or words[told[0]] not in _NO_RELATIONS)
        ):
            yield subject, told, other
