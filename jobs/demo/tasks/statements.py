"""Statements about two pictures of the demo's world, in the files of NLVR2.

    FOLDER/train.json   FOLDER/dev.json   FOLDER/test1.json        one statement on each line
    FOLDER/images/train/train-17-0-img0.png   …-img1.png           the left and the right picture of pair 17

Every statement comes as often true as false, about different pairs, as in NLVR2. A pair shows two scenes of its own split.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.demo.captions import NOUNS, PLACES, Claim, article, draw_claim, phrase
from jobs.demo.drawing import render
from jobs.demo.raw import DemoRawConfig, Split, draw_world, open_task_folder, write_once
from jobs.demo.scenes import COLOURS, KINDS, Kind, Scene, pick
from jobs.demo.tasks.balance import balanced

SIDES = ("left", "right")
PUBLISHED: Mapping[Split, str] = {"train": "train", "val": "dev", "test": "test1"}
PER_PAIR = {"train": 8, "val": 8, "test": 5}  # statements at most, on the average over a split's pairs
ALIKE = 0.7  # share of pairs whose scenes have a kind of thing in common, so that a glance at one picture is not enough
OTHERS = 3  # scenes per pair of which is told what the pair does not show

Pair = tuple[Scene, Scene]
Told = tuple[Claim, str]  # and how it is said


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """One statement about one pair."""

    pair: int  # its number in the split
    text: str
    about: str  # any picture, a side, a thing or a place on a side, both
    truth: bool


def write_statements(config: DemoRawConfig, *, on_pair: Callable[[Split], None] | None = None) -> None:
    """Write pictures and statements of every split; `on_pair` is called when the pictures of a pair are there."""
    storage = open_task_folder(config)
    for place, (split, scenes) in enumerate(draw_world(config).items()):
        name = PUBLISHED[split]
        rng = np.random.default_rng([config.seed, 14, place])
        pairs = draw_pairs(scenes, rng)
        couples = state(pairs, rng, limit=PER_PAIR[split] * len(pairs))
        stated = sorted((each for couple in couples for each in couple), key=lambda each: each.pair)
        media = Path(config.output, "images", name)
        media.mkdir(parents=True, exist_ok=True)
        for number, pair in enumerate(pairs):
            for side, scene in enumerate(pair):
                write_once(media / f"{name}-{number}-0-img{side}.png", _png(scene))
            if on_pair is not None:
                on_pair(split)
        counts: Counter[int] = Counter()
        lines = []
        for each in stated:
            identifier = f"{name}-{each.pair}-0-{counts[each.pair]}"
            counts[each.pair] += 1
            line = {"identifier": identifier, "sentence": each.text, "label": str(each.truth), "synset": each.about}
            lines.append(json.dumps(line) + "\n")
        storage.replace(f"{name}.json", "".join(lines).encode())


def draw_pairs(scenes: Sequence[Scene], rng: np.random.Generator) -> tuple[Pair, ...]:
    """Pair every scene with another one, on either side; most pairs have a kind of thing in common."""
    by_kind = {kind: [scene for scene in scenes if kind in _kinds(scene)] for kind in KINDS}
    pairs = []
    for scene in scenes:
        alike = rng.random() < ALIKE
        pool = by_kind[pick(rng, sorted(_kinds(scene)))] if alike else scenes
        pool = pool if len(pool) > 1 else scenes
        while (other := pick(rng, pool)) is scene:
            pass
        pairs.append((scene, other) if rng.random() < 0.5 else (other, scene))
    return tuple(pairs)


def state(pairs: Sequence[Pair], rng: np.random.Generator, *, limit: int) -> tuple[tuple[Stated, ...], ...]:
    """Choose at most `limit` statements in couples: one text about two pairs, once true and once false."""
    told = {scene: _tell(scene, rng) for pair in pairs for scene in pair}
    scenes = tuple(told)
    items: list[Stated] = []
    for number, pair in enumerate(pairs):
        others = [pick(rng, scenes) for _ in range(OTHERS)]
        items += statable(number, pair, [told[scene] for scene in (*pair, *others)], rng)
    return balanced(
        items,
        rng,
        text=lambda each: each.text,
        answer=lambda each: each.truth,
        kind=lambda each: each.about,
        answers=2,
        limit=limit,
    )


def statable(number: int, pair: Pair, told: Sequence[Told], rng: np.random.Generator) -> Iterator[Stated]:
    """Statements about a pair: true ones, and such as are false by a word, for one of the pictures, or altogether.

    Args:
        number: of the pair.
        pair: the left and the right scene.
        told: what is told of scenes, of the pair's own and of others.
        rng: draws the colours of things that are not there.
    """
    for about, text, truth in (*_of_any(pair, told), *_of_one(pair, rng), *_of_both(pair)):
        yield Stated(pair=number, text=text, about=about, truth=truth)


def _tell(scene: Scene, rng: np.random.Generator) -> Told:
    """Tell all there is to a scene, beginning with its things."""
    claim = draw_claim(scene, rng, silent=0.0)
    while (text := phrase(claim, rng)).startswith("There ") or ", there " in text:
        pass
    return claim, text[0].lower() + text[1:]


def _of_any(pair: Pair, told: Sequence[Told]) -> Iterator[tuple[str, str, bool]]:
    for claim, text in told:
        left, right = (claim.holds(scene) for scene in pair)
        yield "any", f"One image shows {text}", left or right
        for side, holds in zip(SIDES, (left, right), strict=True):
            yield "side", f"The {side} image shows {text}", holds


def _of_one(pair: Pair, rng: np.random.Generator) -> Iterator[tuple[str, str, bool]]:
    there = {(group.kind, group.colour) for scene in pair for group in scene.groups}
    there |= {(kind, pick(rng, COLOURS)) for kind, _ in sorted(there)}
    for side, scene in zip(SIDES, pair, strict=True):
        for kind, colour in sorted(there):
            truth = any(group.kind == kind and group.colour == colour for group in scene.groups)
            for noun in NOUNS[kind]:
                yield "thing", f"The {side} image shows {article(colour)} {colour} {noun}.", truth
        for backdrop in sorted({scene.backdrop for scene in pair}):
            for where in PLACES[backdrop]:
                yield "place", f"The {side} image was taken {where}.", scene.backdrop == backdrop


def _of_both(pair: Pair) -> Iterator[tuple[str, str, bool]]:
    left, right = (_kinds(scene) for scene in pair)
    for kind in sorted(left | right):
        for noun in NOUNS[kind]:
            shared = kind in left and kind in right
            yield "both", f"Both images show {article(noun)} {noun}.", shared
            yield "both", f"Only one of the images shows {article(noun)} {noun}.", not shared


def _kinds(scene: Scene) -> set[Kind]:
    return {group.kind for group in scene.groups}


def _png(scene: Scene) -> bytes:
    buffer = io.BytesIO()
    render(scene).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
