"""Referring expressions for things in the demo's pictures, in the files of RefCOCO+ as REFER publishes them.

    FOLDER/refs(unc).p        references: three expressions each, without a word about where (RefCOCO+ forbids those)
    FOLDER/instances.json     the boxes of all things
    FOLDER/dets.json          proposals: what a detector would find, right boxes and wrong ones, as for weak supervision

A picture with a reference always shows at least two things, so the expression decides. `testA` has pictures of things side by
side, `testB` of things above one another; both show scenes of the demo's test split.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from jobs.demo.captions import NOUNS, SIZE_WORDS
from jobs.demo.drawing import PICTURE_SIDE, extent
from jobs.demo.raw import LICENCE, DemoRawConfig, Split, draw_world, open_task_folder, scene_id
from jobs.demo.scenes import KINDS, Group, Placed, Scene, pick, place_things
from jobs.demo.tasks.balance import shuffled

Box = tuple[float, float, float, float]  # x0, y0, width, height in pixels, as COCO has it

EXPRESSIONS = 3  # per reference
WRONG_PROPOSALS = 2  # per picture
LOOSE = 0.06  # how far a detector misses an edge, as a share of the box's side
SMALLEST_WRONG, LARGEST_WRONG = 0.2, 0.6  # sides of wrong proposals, as shares of the picture's
CATEGORIES: Mapping[str, int] = {kind: place for place, kind in enumerate(KINDS, start=1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One thing in a picture."""

    group: Group
    box: Box


@dataclass(frozen=True, slots=True, kw_only=True)
class Referred:
    """One thing that is referred to, by its place among the picture's things, and in what words."""

    thing: int
    expressions: tuple[str, ...]


def write_expressions(config: DemoRawConfig) -> None:
    """Write references, boxes and proposals of all splits."""
    storage = open_task_folder(config)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    refs: list[dict[str, Any]] = []
    proposals: dict[str, list[Box]] = {}
    sentences = count()
    for place, (split, scenes) in enumerate(draw_world(config).items()):
        rng = np.random.default_rng([config.seed, 13, place])
        for number, scene in enumerate(scenes):
            image_id = scene_id(split, number)
            things = find_things(scene)
            ids = range(len(annotations) + 1, len(annotations) + 1 + len(things))
            images.append(_image(image_id))
            annotations += [_instance(id, image_id, thing) for id, thing in zip(ids, things, strict=True)]
            proposals[str(image_id)] = propose(things, rng)
            for referred in refer(things, rng):
                reference = _reference(referred, category=things[referred.thing].group.kind, sentences=sentences)
                where = {"ref_id": len(refs), "ann_id": ids[referred.thing], "image_id": image_id}
                name = f"COCO_train2014_{image_id:012d}_{where['ann_id']}.jpg"  # REFER drew all its pictures from there
                refs.append({**reference, **where, "file_name": name, "split": published_split(split, scene)})
    categories = [{"supercategory": "thing", "id": id, "name": name} for name, id in CATEGORIES.items()]
    instances = {"images": images, "annotations": annotations, "categories": categories, "licenses": [LICENCE]}
    storage.replace("refs(unc).p", pickle.dumps(refs, protocol=2))
    storage.replace("instances.json", json.dumps(instances).encode())
    storage.replace("dets.json", json.dumps(proposals).encode())


def published_split(split: Split, scene: Scene) -> str:
    """The split's name in RefCOCO+; every picture lies in one."""
    if split == "test":
        return "testA" if scene.layout in ("beside", "row") else "testB"
    return split


def find_things(scene: Scene) -> tuple[Thing, ...]:
    """The things of a scene with their boxes, cut to the picture."""
    groups = {group.kind: group for group in scene.groups}  # no two of a scene are of one kind
    return tuple(Thing(group=groups[placed.kind], box=_box(placed)) for placed in place_things(scene))


def refer(things: Sequence[Thing], rng: np.random.Generator) -> Iterator[Referred]:
    """Refer to every thing that stands alone in its group, in words that fit no other thing of the picture."""
    if len(things) < 2:
        return
    for spot, thing in enumerate(things):
        if thing.group.count == 1:
            words = _words(thing.group, rng)
            chosen = sorted(shuffled(rng, len(words))[:EXPRESSIONS])
            yield Referred(thing=spot, expressions=tuple(words[place] for place in chosen))


def propose(things: Sequence[Thing], rng: np.random.Generator) -> list[Box]:
    """What a detector would find: every thing a little loosely, and some boxes with no thing to match; by lot in order."""
    boxes = [_loosened(thing.box, rng) for thing in things]
    for _ in range(WRONG_PROPOSALS):
        width, height = (SMALLEST_WRONG + (LARGEST_WRONG - SMALLEST_WRONG) * rng.random(2)) * PICTURE_SIDE
        left, top = rng.random() * (PICTURE_SIDE - width), rng.random() * (PICTURE_SIDE - height)
        boxes.append(_cut(left, top, left + width, top + height))
    return [boxes[spot] for spot in shuffled(rng, len(boxes))]


def _words(group: Group, rng: np.random.Generator) -> list[str]:
    """Expressions for a group of one, no two alike. All tell colour and kind: a star alone is in every fifth picture, and what
    is learned here is learned from whole pictures that an expression does not fit.
    """
    size = SIZE_WORDS[group.size]
    forms = ["{colour} {noun}", "the {colour} {noun}", "{noun} in {colour}"]
    forms += ["{size} {colour} {noun}", "the {size} {colour} {noun}"] if size else []
    return [
        form.format(colour=group.colour, noun=pick(rng, NOUNS[group.kind]), size=pick(rng, size) if size else "")
        for form in forms
    ]


def _box(placed: Placed) -> Box:
    x0, y0, x1, y1 = extent(placed.kind)
    left, top = placed.left * PICTURE_SIDE, placed.top * PICTURE_SIDE
    side = placed.side * PICTURE_SIDE
    return _cut(left + x0 * side, top + y0 * side, left + x1 * side, top + y1 * side)


def _loosened(box: Box, rng: np.random.Generator) -> Box:
    left, top, width, height = box
    x0, y0, x1, y1 = (2 * rng.random(4) - 1) * LOOSE
    return _cut(left + x0 * width, top + y0 * height, left + (1 + x1) * width, top + (1 + y1) * height)


def _cut(x0: float, y0: float, x1: float, y1: float) -> Box:
    """A box of corners, cut to the picture, as corner and size."""
    left, top, right, bottom = (round(min(PICTURE_SIDE, max(0.0, float(edge))), 2) for edge in (x0, y0, x1, y1))
    return left, top, round(right - left, 2), round(bottom - top, 2)


def _image(image_id: int) -> dict[str, Any]:
    side = PICTURE_SIDE
    return {
        "license": LICENCE["id"],
        "file_name": f"{image_id:012d}.jpg",
        "height": side,
        "width": side,
        "id": image_id,
    }


def _instance(id: int, image_id: int, thing: Thing) -> dict[str, Any]:
    x, y, width, height = thing.box
    return {
        "id": id,
        "image_id": image_id,
        "category_id": CATEGORIES[thing.group.kind],
        "bbox": [x, y, width, height],
        "area": round(width * height, 2),
        "segmentation": [],
        "iscrowd": 0,
    }


def _reference(referred: Referred, *, category: str, sentences: Iterator[int]) -> dict[str, Any]:
    said = [
        {"tokens": text.split(), "raw": text, "sent": text, "sent_id": next(sentences)} for text in referred.expressions
    ]
    return {
        "sent_ids": [sentence["sent_id"] for sentence in said],
        "sentences": said,
        "category_id": CATEGORIES[category],
    }
