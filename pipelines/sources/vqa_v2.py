"""VQA v2, and OK-VQA in the same layout: a file of questions, a file of ten answers for each, and COCO's pictures.

    source.kind=vqa_v2 source.annotations=v2_OpenEnded_mscoco_train2014_questions.json
    source.answers=v2_mscoco_train2014_annotations.json source.media=train2014

A test split has no answers; its questions come without any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, ClassVar

from pipelines.coco_pictures import coco_file, coco_stem
from pipelines.drafts import Draft, Place, Problem, drafted_from_files
from pipelines.media_folder import MediaFolder
from pipelines.questions import QuestionIds, annotators_answers, ask
from pipelines.raw_text import read_json
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError
from shards.media import MediaProblem

_SUBSET = re.compile(r"(train|val|test(?:-dev)?)(\d{4})")
_PICTURES_OF = {"test-dev2015": "test2015"}  # a list of fewer questions about the same pictures


class Config(SourceConfig):
    """`split` only names the split; unset, it is read off the questions file, which says `train2014` inside or in its name."""

    LOCATIONS: ClassVar = ("annotations", "answers", "media")
    SPLIT_IN_NAME: ClassVar = _SUBSET

    media: str
    """The folder of the pictures, or the one that holds `train2014`, `val2014`, … (or those of 2017)."""
    answers: str | None = None
    """The annotations file with the answers; unset: a test split, whose questions have none."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _pictures(config, folder), config=config, target=target)


def _pictures(config: Config, folder: MediaFolder) -> list[Draft]:
    """Every picture with its questions, sorted by image id; answers without their question are refused by name."""
    content = read_json(config.annotations, key="source.annotations")
    questions = _rows(content, "questions", path=config.annotations, key="source.annotations")
    answers = _answers(config)
    subset = _subset(content, config)
    pictures: dict[str, Draft] = {}
    ids = QuestionIds()
    for number, question in enumerate(questions):
        where = f"questions[{number}]"
        picture = _picture(pictures, question.get("image_id"), where=where, folder=folder, subset=subset)
        with picture.refusing(str(question.get("question_id", where))):
            id = ids.take(question.get("question_id"), where=where)
            given = answers.pop(id, None) if answers is not None else {}
            if given is None:
                raise MediaProblem("missing_field", f"{where} has no answers in {PurePath(config.answers or '').name}")
            ask(
                picture,
                question.get("question"),
                id=id,
                answers=annotators_answers(given.get("answers"), where=where) if given else (),
                where=where,
                question_type=given.get("question_type"),
                answer_type=given.get("answer_type"),
            )
    for id, answer in (answers or {}).items():
        picture = _picture(pictures, answer.get("image_id"), where=f"answers of {id}", folder=folder, subset=subset)
        picture.refuse(id, "missing_field", "its answers have no question in the questions file")
    return sorted(pictures.values(), key=lambda picture: (len(picture.id), picture.id))


def _picture(pictures: dict[str, Draft], raw: Any, *, where: str, folder: MediaFolder, subset: str) -> Draft:
    if isinstance(raw, bool) or not isinstance(raw, int) or raw < 0:
        problem: Problem = ("missing_field", f"{where} has no image_id")
        return pictures.setdefault(where, Draft(id=where, stem=where, problem=problem))
    id = str(raw)
    if id not in pictures:
        pictures[id] = Draft(id=id, stem=coco_stem(raw), media=[Place(file=coco_file(folder, raw, subset=subset))])
    return pictures[id]


def _rows(content: Any, name: str, *, path: str, key: str) -> Sequence[Mapping[str, Any]]:
    rows = content.get(name) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        holds = ", ".join(sorted(content)) if isinstance(content, dict) else type(content).__name__
        swapped = (
            "; this looks like the other one of the two files" if "annotations" in holds or "questions" in holds else ""
        )
        raise InputError(
            f"{key}: {path} has no list `{name}` of objects (it holds: {holds}){swapped}; "
            "source.annotations is v2_OpenEnded_*_questions.json, source.answers is v2_mscoco_*_annotations.json"
        )
    return rows


def _answers(config: Config) -> dict[str, Mapping[str, Any]] | None:
    if config.answers is None:
        return None
    content = read_json(config.answers, key="source.answers")
    rows = _rows(content, "annotations", path=config.answers, key="source.answers")
    if not any("answers" in row for row in rows):
        raise InputError(
            f"source.answers: no annotation of {config.answers} has `answers` (they hold: {', '.join(sorted(rows[0]))}); "
            "give v2_mscoco_*_annotations.json"
        )
    answers: dict[str, Mapping[str, Any]] = {}
    for number, row in enumerate(rows):
        # The first of two wins, as its question does; a row without an id can belong to no question and is named by its place.
        answers.setdefault(str(row.get("question_id", f"annotations[{number}]")), row)
    return answers


def _subset(content: Mapping[str, Any], config: Config) -> str:
    stated = content.get("data_subtype")
    name = stated if isinstance(stated, str) else ""
    found = _SUBSET.search(name) or _SUBSET.search(PurePath(config.annotations).name)
    subset = found.group(0) if found else "train2014"
    return _PICTURES_OF.get(subset, subset)
