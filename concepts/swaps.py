"""Captions made wrong by one exchange of an object, an attribute or a relation, or of the order of two.

The kinds are those of SugarCrepe (Hsieh et al., 2023). Its authors let a language model write fluent wrong captions, since
nonsense is told from sense without looking at the picture. Here the dataset's own captions vouch for it: words come together in
what is made only where they came together in some caption. And a wrong caption must be wrong: a new object is one that captions
name beside the old one, so that the two are different things, and that no caption of the picture names; attributes and relations
are exchanged for those that exclude them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np

from concepts.contrasts import GENERAL, SYMMETRIC, excluded_attributes, excluded_relations
from concepts.patterns import NounRun, noun_runs, relations
from concepts.phrases import Tagged
from concepts.vocabulary import singulars

SwapKind = Literal["replace_object", "replace_attribute", "replace_relation", "swap_objects", "swap_attributes"]
KINDS: tuple[SwapKind, ...] = (
    "replace_object",
    "replace_attribute",
    "replace_relation",
    "swap_objects",
    "swap_attributes",
)
# (what, left, right): "has" attribute noun; "does" noun relation; "to" relation noun; "beside" noun noun, in one caption.
Use = tuple[Literal["has", "does", "to", "beside"], str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A wrong caption, and what was exchanged."""

    text: str
    kind: SwapKind


@dataclass(frozen=True)
class Scene:
    """What one caption says, by the places of its words."""

    text: str
    tagged: Tagged

    @property
    def words(self) -> tuple[str, ...]:
        return self.tagged.words

    @cached_property
    def runs(self) -> tuple[NounRun, ...]:
        """What it names."""
        return tuple(noun_runs(self.words, self.tagged.classes))

    @cached_property
    def relations(self) -> tuple[tuple[NounRun, tuple[int, ...], NounRun], ...]:
        """What it says of two of them."""
        return tuple(relations(self.words, self.tagged.classes, self.runs))

    def uses(self, words: Sequence[str] | None = None) -> Iterator[Use]:
        """Say which words come together, and how; with other words given, in the caption that has those in the same places."""
        words = words or self.words
        for run in self.runs:
            for place in run.attributes:
                yield "has", words[place], words[run.head]
        for subject, places, other in self.relations:
            said = " ".join(words[place] for place in places)
            yield "does", words[subject.head], said
            yield "to", said, words[other.head]
        for one, two in combinations(sorted({words[run.head] for run in self.runs}), 2):
            yield "beside", one, two


def count_uses(scenes: Iterable[Scene]) -> Counter[Use]:
    """Count in how many captions words come together; counts of parts add up to those of the whole."""
    return Counter(use for scene in scenes for use in set(scene.uses()))


class Usage:
    """Which words come together often enough for a caption to be believed."""

    def __init__(self, counts: Mapping[Use, int], *, min_seen: int) -> None:
        """Args:
        counts: see `count_uses`.
        min_seen: captions in which words come together before that counts as sense.
        """
        self._seen = frozenset(use for use, count in counts.items() if count >= min_seen)
        beside: dict[str, set[str]] = {}
        for what, one, two in self._seen:
            if what == "beside":
                beside.setdefault(one, set()).add(two)
                beside.setdefault(two, set()).add(one)
        self._beside = {noun: frozenset(others) for noun, others in beside.items()}
        self._nouns: dict[tuple[str, str], set[str]] = {}
        for what, one, two in self._seen:
            if what != "beside":
                noun, company = (one, two) if what == "does" else (two, one)
                self._nouns.setdefault((what, company), set()).add(noun)

    def believes(self, uses: Iterable[Use]) -> bool:
        """Whether captions vouch for these words to come together; for no words at all they do not."""
        told = [use for use in uses if use[0] != "beside"]
        return bool(told) and all(use in self._seen for use in told)

    def different(self, noun: str, company: Iterable[tuple[str, str]]) -> set[str]:
        """The nouns that captions name beside this one, and in the same company: with an attribute, before or behind a relation."""
        found = set(self._beside.get(noun, ()))
        for each in company:
            found &= self._nouns.get(each, set())
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What stands at some places instead.

    Attributes:
        heard: the words that make or spoil the sense, by place.
        written: what is written there, where that is more: a noun takes its attributes along.
    """

    heard: Mapping[int, str]
    written: Mapping[int, str] | None = None


Exchanges = Iterator[Exchange]


def make_swaps(
    scene: Scene, usage: Usage, *, shown: frozenset[str], rng: np.random.Generator, kinds: Sequence[SwapKind] = KINDS
) -> list[Swap]:
    """Make at most one wrong caption of each kind.

    Args:
        scene: the right caption.
        usage: of the whole dataset.
        shown: all words of all captions of the picture; none of them is put in.
        rng: chooses among what is possible; keyed by the record and the caption.
        kinds: which, in the order of the result.
    """
    made: list[Swap] = []
    for kind in kinds:
        possible = {
            _written(scene, exchange.written or exchange.heard)
            for exchange in _MAKERS[kind](scene, usage, shown)
            if _makes_sense(scene, exchange, usage)
        }
        texts = sorted(possible - {scene.text})
        if texts:
            made.append(Swap(text=texts[int(rng.integers(len(texts)))], kind=kind))
    return made


def _makes_sense(scene: Scene, exchange: Exchange, usage: Usage) -> bool:
    words = [exchange.heard.get(place, word) for place, word in enumerate(scene.words)]
    new = set(scene.uses(words)) - set(scene.uses())
    # Where nouns move with their attributes, these still stand with the same nouns.
    return usage.believes(use for use in new if exchange.written is None or use[0] != "has")


def _objects(scene: Scene, usage: Usage, shown: frozenset[str]) -> Exchanges:
    for run in scene.runs:
        word = scene.words[run.head]
        if word in GENERAL or _is_compound(scene, run):
            continue
        company = [("has", scene.words[place]) for place in run.attributes]
        for subject, places, target in scene.relations:
            said = " ".join(scene.words[place] for place in places)
            company += [(what, said) for what, noun in (("does", subject), ("to", target)) if noun is run]
        for other in usage.different(word, company) if company else ():
            if other not in GENERAL and not _is_shown(other, shown) and _is_plural(other) == _is_plural(word):
                yield Exchange(heard={run.head: other})


def _attributes(scene: Scene, usage: Usage, shown: frozenset[str]) -> Exchanges:
    for run in scene.runs:
        for place in run.attributes:
            for other in excluded_attributes(scene.words[place]) - shown:
                yield Exchange(heard={place: other})


def _relations(scene: Scene, usage: Usage, shown: frozenset[str]) -> Exchanges:
    for _, places, _ in scene.relations:
        for place in places:
            for other in excluded_relations(scene.words[place]) - shown:
                yield Exchange(heard={place: other})


def _swapped_objects(scene: Scene, usage: Usage, shown: frozenset[str]) -> Exchanges:
    """Each in the other's place, with its attributes; not where the relation says the same of both."""
    for subject, places, target in scene.relations:
        one, two = scene.words[subject.head], scene.words[target.head]
        said = " ".join(scene.words[place] for place in places)
        if said in SYMMETRIC or one == two or {one, two} & GENERAL or _is_plural(one) != _is_plural(two):
            continue
        first, second = range(subject.start, subject.head + 1), range(target.start, target.head + 1)
        yield Exchange(
            heard={subject.head: two, target.head: one},
            written={**_moved(scene, first, second), **_moved(scene, second, first)},
        )


def _swapped_attributes(scene: Scene, usage: Usage, shown: frozenset[str]) -> Exchanges:
    for one, two in combinations(scene.runs, 2):
        for first in one.attributes:
            for second in two.attributes:
                left, right = scene.words[first], scene.words[second]
                if right in excluded_attributes(left) and scene.words[one.head] != scene.words[two.head]:
                    yield Exchange(heard={first: right, second: left})


_MAKERS: Mapping[SwapKind, Callable[[Scene, Usage, frozenset[str]], Exchanges]] = {
    "replace_object": _objects,
    "replace_attribute": _attributes,
    "replace_relation": _relations,
    "swap_objects": _swapped_objects,
    "swap_attributes": _swapped_attributes,
}


def _moved(scene: Scene, to: range, words: range) -> dict[int, str]:
    """Put words at the first of some places, and nothing at the others."""
    said = " ".join(scene.words[place] for place in words)
    return {place: said if place == to[0] else "" for place in to}


def _written(scene: Scene, exchange: Mapping[int, str]) -> str:
    """The caption with some words exchanged, capitals and articles as they have to be; the rest is left as it stands."""
    text = scene.text
    for place in sorted(exchange, reverse=True):
        start = scene.tagged.starts[place]
        end = start + len(scene.words[place])
        word = exchange[place]
        if word and text[start].isupper():
            word = word[0].upper() + word[1:]
        if not word:  # the blank before goes, too
            start = len(text[:start].rstrip())
        text = text[:start] + word + text[end:]
        if word and place and scene.words[place - 1] in ("a", "an"):
            at = scene.tagged.starts[place - 1]
            article = "an" if word[0].lower() in "aeiou" else "a"
            article = article.capitalize() if text[at].isupper() else article
            text = text[:at] + article + text[at + len(scene.words[place - 1]) :]
    return text


def _is_compound(scene: Scene, run: NounRun) -> bool:
    """ "tennis racket": another head would seldom go with the first noun."""
    return run.head > run.start and scene.tagged.classes[run.head - 1] == "noun"


def _is_plural(noun: str) -> bool:
    return bool(singulars(noun))


def _is_shown(noun: str, shown: frozenset[str]) -> bool:
    """Whether the picture's captions name it, in the singular or the plural."""
    return bool(shown & {noun, f"{noun}s", f"{noun}es", *singulars(noun)})
