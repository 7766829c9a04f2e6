"""What people would say about a scene: claims first, which can be checked against its facts, then words.

A claim names some groups with some of their attributes, perhaps how they stand to one another and perhaps where. Most
captions claim nearly everything, some leave out a size, the place or a whole group, as captions of photos do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np

from jobs.demo.scenes import Backdrop, Colour, Group, Kind, Layout, Scene, Size, pick

Relation = Literal["left_of", "right_of", "next_to", "above", "below", "on", "under", "between", "together"]

NOUNS: Mapping[Kind, tuple[str, ...]] = {
    "ball": ("ball",),
    "box": ("box", "cube"),
    "star": ("star",),
    "heart": ("heart",),
    "house": ("house",),
    "tree": ("tree",),
    "car": ("car",),
    "boat": ("boat", "sailboat"),
    "fish": ("fish",),
    "mug": ("mug", "cup"),
    "moon": ("moon",),
    "flower": ("flower",),
}
PLURALS = {"box": "boxes", "fish": "fish"}
SIZE_WORDS: Mapping[Size, tuple[str, ...]] = {"small": ("small", "little"), "medium": (), "large": ("large", "big")}
COUNT_WORDS = {2: "two", 3: "three"}
SILENT = 0.15  # chance that a later caption leaves out each of the things that can be left out
FULL_CAPTIONS = 2  # of every scene, told first: all there is to claim
PLACES: Mapping[Backdrop, tuple[str, ...]] = {
    "meadow": ("on a green meadow", "in a grassy field"),
    "beach": ("on a sandy beach", "at the beach"),
    "night": ("under the night sky", "against a starry night sky"),
    "snow": ("in the snow", "on a snowy hill"),
    "sea": ("in the blue sea", "in the water"),
    "desert": ("in the desert", "on the sand of a desert"),
    "room": ("in a room with a window", "on the wooden floor of a room"),
    "road": ("on a city street", "on a street in the city"),
}
PHRASES: Mapping[Relation, tuple[str, ...]] = {
    "left_of": ("to the left of", "left of"),
    "right_of": ("to the right of", "right of"),
    "next_to": ("next to", "beside"),
    "above": ("above", "over"),
    "below": ("below", "beneath"),
    "on": ("on top of", "sitting on"),
    "under": ("under", "underneath"),
}
PAIR_RELATION: Mapping[Layout, Relation] = {"beside": "left_of", "above": "above", "on": "on"}
INVERSE: Mapping[Relation, Relation] = {"left_of": "right_of", "above": "below", "on": "under"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """What a claim says of one group; None where it keeps silent."""

    kind: Kind
    colour: Colour | None
    size: Size | None
    count: int

    def fits(self, group: Group) -> bool:
        return (
            self.kind == group.kind
            and self.count == group.count
            and self.colour in (None, group.colour)
            and self.size in (None, group.size)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Mentions in the order they are told, how the first stands to the others, and the place."""

    mentions: tuple[Mention, ...]
    relation: Relation | None = None
    place: Backdrop | None = None

    def holds(self, scene: Scene) -> bool:
        """Whether a scene bears the claim out; a claim that keeps silent about something holds either way."""
        if self.place not in (None, scene.backdrop):
            return False
        return any(
            all(mention.fits(scene.groups[spot]) for mention, spot in zip(self.mentions, spots, strict=True))
            and (self.relation is None or stands(scene, self.relation, spots))
            for spots in permutations(range(len(scene.groups)), len(self.mentions))
        )


def stands(scene: Scene, relation: Relation, spots: tuple[int, ...]) -> bool:
    """Whether the groups at these places of the layout stand in a relation, the first to the rest."""
    first, *rest = spots
    if relation == "together":
        return True
    if relation == "between":
        return scene.layout == "row" and first == 1
    other = rest[0]
    level = scene.layout in ("beside", "row")
    stacked = scene.layout in ("above", "on")
    answers: Mapping[Relation, bool] = {
        "left_of": level and first < other,
        "right_of": level and first > other,
        "next_to": level and abs(first - other) == 1,
        "above": stacked and first < other,
        "below": stacked and first > other,
        "on": scene.layout == "on" and first < other,
        "under": stacked and first > other,
    }
    return answers[relation]


def describe(scene: Scene, rng: np.random.Generator, *, count: int = 5) -> tuple[tuple[Claim, str], ...]:
    """Describe a scene `count` times, no two texts alike.

    Returns:
        Claims with their captions. The first ones claim all there is to claim; each later one leaves something out by lot.
    """
    told: dict[str, Claim] = {}
    while len(told) < count:
        claim = draw_claim(scene, rng, silent=0.0 if len(told) < FULL_CAPTIONS else SILENT)
        told.setdefault(phrase(claim, rng), claim)
    return tuple((claim, text) for text, claim in told.items())


def draw_claim(scene: Scene, rng: np.random.Generator, *, silent: float) -> Claim:
    """Draw a true claim about a scene; `silent` is the chance to leave out each of the things that can be left out."""
    spots = list(range(len(scene.groups)))
    relation: Relation | None = None
    if scene.layout == "row":
        relation, spots = _row_order(rng, silent)
    elif scene.layout != "alone":
        relation, spots = _pair_order(scene, rng, silent)
    mentions = tuple(_mention(scene.groups[spot], rng, silent=silent) for spot in spots)
    place = None if rng.random() < silent else scene.backdrop
    return Claim(mentions=mentions, relation=relation, place=place)


def phrase(claim: Claim, rng: np.random.Generator) -> str:
    """Put a claim into one English sentence."""
    names = [_noun_phrase(mention, rng) for mention in claim.mentions]
    where = pick(rng, PLACES[claim.place]) if claim.place else ""
    if claim.relation in (None, "together"):
        body = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    elif claim.relation == "between":
        body = f"{names[0]} between {names[1]} and {names[2]}"
    else:
        assert claim.relation is not None
        body = f"{names[0]} {pick(rng, PHRASES[claim.relation])} {names[1]}"
        body += f" and {names[2]}" if len(names) > 2 else ""
    plural = claim.mentions[0].count > 1
    mark = rng.random()
    if mark < 0.2 and where:
        sentence = f"{where}, there {'are' if plural else 'is'} {body}"
    elif mark < 0.4:
        sentence = f"there {'are' if plural else 'is'} {body} {where}"
    else:
        sentence = f"{body} {where}"
    sentence = sentence.strip()
    return f"{sentence[0].upper()}{sentence[1:]}."


def _pair_order(scene: Scene, rng: np.random.Generator, silent: float) -> tuple[Relation | None, list[int]]:
    base = PAIR_RELATION[scene.layout]
    if rng.random() < silent:
        relation: Relation = "next_to" if scene.layout == "beside" and rng.random() < 0.5 else "together"
        return relation, [0, 1] if rng.random() < 0.5 else [1, 0]
    return (base, [0, 1]) if rng.random() < 0.6 else (INVERSE[base], [1, 0])


def _row_order(rng: np.random.Generator, silent: float) -> tuple[Relation, list[int]]:
    if rng.random() < silent / 2:  # one group goes unmentioned
        left, right = pick(rng, ((0, 1), (1, 2), (0, 2)))
        return ("left_of", [left, right]) if rng.random() < 0.5 else ("right_of", [right, left])
    if rng.random() < 0.6:
        return "between", [1, 0, 2] if rng.random() < 0.5 else [1, 2, 0]
    return "together", [0, 1, 2] if rng.random() < 0.7 else [2, 1, 0]


def _mention(group: Group, rng: np.random.Generator, *, silent: float) -> Mention:
    named = group.size != "medium" and rng.random() >= silent
    coloured = rng.random() >= silent / 3  # colours are what people tell first
    return Mention(
        kind=group.kind,
        colour=group.colour if coloured else None,
        size=group.size if named else None,
        count=group.count,
    )


def _noun_phrase(mention: Mention, rng: np.random.Generator) -> str:
    noun = pick(rng, NOUNS[mention.kind])
    words = [pick(rng, SIZE_WORDS[mention.size])] if mention.size else []
    words += [mention.colour] if mention.colour else []
    if mention.count > 1:
        return " ".join([COUNT_WORDS[mention.count], *words, plural(noun)])
    words.append(noun)
    return " ".join([article(words[0]), *words])


def plural(noun: str) -> str:
    return PLURALS.get(noun, noun + "s")


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
