"""Hypotheses about the demo's pictures, in the JSON lines of SNLI-VE: `snli_ve_train.jsonl`, `…_dev.jsonl`, `…_test.jsonl`.

A hypothesis tells something of one thing. Where the picture shows the thing, it is true or false; where the picture does not
show it, the picture leaves it open. Each text comes once with every label, about three pictures, so the text alone says nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

import numpy as np

from jobs.demo.captions import NOUNS, PLACES, Relation, stands
from jobs.demo.raw import DemoRawConfig, Split, draw_world, open_task_folder, scene_captions, scene_id
from jobs.demo.scenes import BACKDROPS, COLOURS, KINDS, Group, Kind, Scene, pick
from jobs.demo.tasks.balance import balanced

Label = Literal["entailment", "neutral", "contradiction"]

LABELS: tuple[Label, ...] = ("entailment", "neutral", "contradiction")
PUBLISHED: Mapping[Split, str] = {"train": "train", "val": "dev", "test": "test"}
PER_SCENE = {"train": 9, "val": 9, "test": 6}  # hypotheses at most, on the average over a split's scenes
ANNOTATORS = 5
AGREE = 0.92  # chance that a further annotator says what the first did


@dataclass(frozen=True, slots=True, kw_only=True)
class Supposed:
    """One hypothesis about one scene."""

    scene: int  # its number in the split
    text: str
    about: str  # colour, place or position
    label: Label


def write_hypotheses(config: DemoRawConfig) -> None:
    """Write the hypotheses of every split."""
    storage = open_task_folder(config)
    for place, (split, scenes) in enumerate(draw_world(config).items()):
        rng = np.random.default_rng([config.seed, 12, place])
        triples = suppose(scenes, rng, limit=PER_SCENE[split] * len(scenes))
        captions = [scene_captions(config, split, number, scene)[0] for number, scene in enumerate(scenes)]
        counts: Counter[int] = Counter()
        lines = []
        for each in sorted((each for triple in triples for each in triple), key=lambda each: each.scene):
            line = _line(split, each, counts[each.scene], captions[each.scene], rng)
            lines.append(json.dumps(line) + "\n")
            counts[each.scene] += 1
        storage.replace(f"snli_ve_{PUBLISHED[split]}.jsonl", "".join(lines).encode())


def suppose(scenes: Sequence[Scene], rng: np.random.Generator, *, limit: int) -> tuple[tuple[Supposed, ...], ...]:
    """Choose at most `limit` hypotheses in triples: one text about three scenes, with all three labels."""
    return balanced(
        [each for number, scene in enumerate(scenes) for each in supposable(number, scene, rng)],
        rng,
        text=lambda each: each.text,
        answer=lambda each: each.label,
        kind=lambda each: each.about,
        answers=len(LABELS),
        limit=limit,
    )


def supposable(number: int, scene: Scene, rng: np.random.Generator) -> Iterator[Supposed]:
    """Hypotheses about a scene: about all that it shows, and about one thing, drawn by lot, that it does not show."""
    shown = {group.kind: group for group in scene.groups if group.count == 1}
    missing = pick(rng, [kind for kind in KINDS if all(kind != group.kind for group in scene.groups)])
    for kind in (*shown, missing):
        for noun in NOUNS[kind]:
            for about, text, truth in _claims(noun, shown.get(kind), scene):
                yield _supposed(number, text, about, truth)
    for first, second in permutations((*shown, missing), 2):
        side = "to the left of" if rng.random() < 0.5 else "above"
        truth = None if missing in (first, second) else _stands(scene, side, first, second)
        for noun in NOUNS[first]:
            for other in NOUNS[second]:
                yield _supposed(number, f"The {noun} is {side} the {other}.", "position", truth)


def _claims(noun: str, group: Group | None, scene: Scene) -> Iterator[tuple[str, str, bool | None]]:
    """(what of, text, whether it is true) about a thing; open where the thing is not there."""
    for colour in COLOURS:
        yield "colour", f"The {noun} is {colour}.", None if group is None else group.colour == colour
    for backdrop in BACKDROPS:
        for where in PLACES[backdrop]:
            yield "place", f"The {noun} is {where}.", None if group is None else scene.backdrop == backdrop


def _stands(scene: Scene, side: str, first: Kind, second: Kind) -> bool:
    spots = {group.kind: spot for spot, group in enumerate(scene.groups)}
    relation: Relation = "left_of" if side == "to the left of" else "above"
    return stands(scene, relation, (spots[first], spots[second]))


def _supposed(number: int, text: str, about: str, truth: bool | None) -> Supposed:
    label: Label = "neutral" if truth is None else "entailment" if truth else "contradiction"
    return Supposed(scene=number, text=text, about=about, label=label)


def _line(split: Split, each: Supposed, place: int, caption: str, rng: np.random.Generator) -> dict[str, Any]:
    """One line of the file; the first annotator is the one who wrote the hypothesis, the others mostly agree."""
    picture = f"{scene_id(split, each.scene):012d}"
    others = [each.label if rng.random() < AGREE else pick(rng, LABELS) for _ in range(ANNOTATORS - 1)]
    labels = [each.label, *others]
    (best, votes), *_ = Counter(labels).most_common()
    return {
        "Flickr30K_ID": picture,
        "annotator_labels": labels,
        "captionID": f"{picture}.jpg#0",
        "gold_label": best if votes > ANNOTATORS // 2 else "-",
        "pairID": f"{picture}.jpg#0r{place + 1}{each.label[0]}",
        "sentence1": caption,
        "sentence2": each.text,
    }
