"""Questions about the demo's pictures, in the files of VQA v2.

    FOLDER/v2_OpenEnded_mscoco_train2017_questions.json      FOLDER/v2_mscoco_train2017_annotations.json
    FOLDER/v2_mscoco_train2017_complementary_pairs.json      two ids each: one question, two pictures, two answers

The answers of the test split are not published: they lie under `held_back/`, where VQA v2 has an evaluation server.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jobs.demo.captions import NOUNS, Relation, article, plural, stands
from jobs.demo.raw import LICENCE, DemoRawConfig, Split, draw_world, open_task_folder, scene_id
from jobs.demo.scenes import COLOURS, KINDS, Backdrop, Group, Scene, pick
from jobs.demo.tasks.balance import balanced
from shards.storage import Storage

AnswerType = Literal["yes/no", "number", "other"]

PER_SCENE = {"train": 10, "val": 10, "test": 5}  # questions at most, on the average over a split's scenes
ANNOTATORS = 10
SLIP = 0.04  # chance that an annotator says something wrong
USUAL = 0.7  # share of the others who take the commonest right word without a second thought
HELD_BACK = "held_back"
PLACES: Mapping[Backdrop, tuple[str, ...]] = {
    "meadow": ("meadow", "field"),
    "beach": ("beach",),
    "night": ("night sky", "sky"),
    "snow": ("snow",),
    "sea": ("sea", "water"),
    "desert": ("desert",),
    "room": ("room",),
    "road": ("street", "city"),
}
LEVEL = ("beside", "row")
ASKED_SIDES: Mapping[str, Relation] = {
    "to the left of": "left_of",
    "to the right of": "right_of",
    "above": "above",
    "below": "below",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question about one scene, with what its annotators may say: the right words, and wrong ones that are near."""

    scene: int  # its number in the split
    question: str
    question_type: str
    answer_type: AnswerType
    answers: tuple[str, ...]  # all right, the commonest first
    slips: tuple[str, ...]


def write_questions(config: DemoRawConfig) -> None:
    """Write questions, answers and pairs of every split."""
    storage = open_task_folder(config)
    for place, (split, scenes) in enumerate(draw_world(config).items()):
        rng = np.random.default_rng([config.seed, 11, place])
        pairs = ask(scenes, rng, limit=PER_SCENE[split] * len(scenes))
        _write_split(storage, split, pairs, rng)


def ask(scenes: Sequence[Scene], rng: np.random.Generator, *, limit: int) -> tuple[tuple[Asked, ...], ...]:
    """Choose at most `limit` questions in pairs: the same question about two scenes, with different answers."""
    return balanced(
        [asked for number, scene in enumerate(scenes) for asked in askable(number, scene)],
        rng,
        text=lambda asked: asked.question,
        answer=lambda asked: asked.answers[0],
        kind=lambda asked: asked.question_type,
        answers=2,
        limit=limit,
    )


def askable(number: int, scene: Scene) -> Iterator[Asked]:
    """All questions that a scene answers."""
    yield _where(number, scene)
    for spot, group in enumerate(scene.groups):
        for noun in NOUNS[group.kind]:
            yield from _about(number, group, noun)
            yield from _relations(number, scene, spot, noun)
    yield from _is_there(number, scene)


def _about(number: int, group: Group, noun: str) -> Iterator[Asked]:
    several = plural(noun)
    subject = f"is the {noun}" if group.count == 1 else f"are the {several}"
    yield Asked(
        scene=number,
        question=f"What color {subject}?",
        question_type="what color " + ("is the" if group.count == 1 else "are the"),
        answer_type="other",
        answers=(group.colour,),
        slips=tuple(colour for colour in COLOURS if colour != group.colour),
    )
    yield Asked(
        scene=number,
        question=f"How many {several} are there?",
        question_type="how many",
        answer_type="number",
        answers=(str(group.count),),
        slips=tuple(str(count) for count in (1, 2, 3) if count != group.count),
    )


def _where(number: int, scene: Scene) -> Asked:
    return Asked(
        scene=number,
        question="Where was this picture taken?",
        question_type="where was",
        answer_type="other",
        answers=PLACES[scene.backdrop],
        slips=tuple(words[0] for place, words in PLACES.items() if place != scene.backdrop),
    )


def _relations(number: int, scene: Scene, spot: int, noun: str) -> Iterator[Asked]:
    """What stands beside, above or below a thing, and whether another one stands on this side or that."""
    level = scene.layout in LEVEL
    side: str = "to the left of" if level else "above"
    relation: Relation = "left_of" if level else "above"
    for other, neighbour in enumerate(scene.groups):
        if other == spot:
            continue
        for second in NOUNS[neighbour.kind]:
            truth = stands(scene, relation, (spot, other))
            yield _yes_or_no(number, f"Is the {noun} {side} the {second}?", "is the", truth)
        for asked, relation_back in ASKED_SIDES.items():
            if abs(other - spot) == 1 and stands(scene, relation_back, (other, spot)):
                yield Asked(
                    scene=number,
                    question=f"What is {asked} the {noun}?",
                    question_type="what is",
                    answer_type="other",
                    answers=NOUNS[neighbour.kind],
                    slips=tuple(NOUNS[kind][0] for kind in KINDS if kind != neighbour.kind),
                )


def _is_there(number: int, scene: Scene) -> Iterator[Asked]:
    """Whether a thing of a colour is there: true ones, and others that are wrong in one word."""
    there = {(group.kind, group.colour) for group in scene.groups}
    nearly = {(kind, colour) for kind, _ in there for colour in COLOURS}
    nearly |= {(kind, colour) for kind in KINDS for _, colour in there}
    for kind, colour in sorted(there | nearly):
        for noun in NOUNS[kind]:
            words = f"{article(colour)} {colour} {noun}"
            yield _yes_or_no(number, f"Is there {words} in the picture?", "is there", (kind, colour) in there)


def _yes_or_no(number: int, question: str, question_type: str, truth: bool) -> Asked:
    return Asked(
        scene=number,
        question=question,
        question_type=question_type,
        answer_type="yes/no",
        answers=("yes",) if truth else ("no",),
        slips=("no",) if truth else ("yes",),
    )


def _write_split(storage: Storage, split: Split, pairs: Sequence[tuple[Asked, ...]], rng: np.random.Generator) -> None:
    """Number the questions picture by picture, as VQA v2 does, and write the split's files."""
    numbered: dict[Asked, int] = {}
    counts: Counter[int] = Counter()
    for asked in sorted((asked for pair in pairs for asked in pair), key=lambda asked: asked.scene):
        numbered[asked] = 1000 * scene_id(split, asked.scene) + counts[asked.scene]
        counts[asked.scene] += 1
    subset = f"{split}2017"
    header = {
        "info": {"description": f"Ostraka demo questions, {split} split", "version": "2.0", "contributor": "Ostraka"},
        "license": {"name": LICENCE["name"], "url": LICENCE["url"]},
        "data_type": "mscoco",
        "data_subtype": subset,
    }
    questions = [
        {"image_id": scene_id(split, asked.scene), "question": asked.question, "question_id": number}
        for asked, number in numbered.items()
    ]
    annotations = [_annotation(split, asked, number, rng) for asked, number in numbered.items()]
    held = f"{HELD_BACK}/" if split == "test" else ""
    files: Mapping[str, Any] = {
        f"{held}v2_mscoco_{subset}_annotations.json": {**header, "annotations": annotations},
        f"{held}v2_mscoco_{subset}_complementary_pairs.json": [[numbered[asked] for asked in pair] for pair in pairs],
        f"v2_OpenEnded_mscoco_{subset}_questions.json": {**header, "task_type": "Open-Ended", "questions": questions},
    }
    for name, content in files.items():
        storage.replace(name, json.dumps(content).encode())


def _annotation(split: Split, asked: Asked, number: int, rng: np.random.Generator) -> dict[str, Any]:
    said = [_said(asked, rng) for _ in range(ANNOTATORS)]
    return {
        "question_type": asked.question_type,
        "multiple_choice_answer": Counter(said).most_common(1)[0][0],
        "answers": [
            {"answer": answer, "answer_confidence": "yes" if answer in asked.answers else "maybe", "answer_id": place}
            for place, answer in enumerate(said, start=1)
        ],
        "image_id": scene_id(split, asked.scene),
        "answer_type": asked.answer_type,
        "question_id": number,
    }


def _said(asked: Asked, rng: np.random.Generator) -> str:
    """What one annotator says: most say the commonest right word, few slip."""
    if rng.random() < SLIP:
        return pick(rng, asked.slips)
    return asked.answers[0] if rng.random() < USUAL else pick(rng, asked.answers)
