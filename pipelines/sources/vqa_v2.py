"""VQA v2, and OK-VQA in the same layout: a file of questions, a file of ten answers for each, and COCO's pictures.

    source.kind=vqa_v2 source.annotations=v2_OpenEnded_mscoco_train2014_questions.json
    source.answers=v2_mscoco_train2014_annotations.json source.media=train2014

A test split has no answers; its questions come without any.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, ClassVar

from pipelines.coco_pictures import coco_file, coco_stem
from pipelines.drafts import Draft, Place, Problem, drafted_from_files
from pipelines.json_stream import TOP, stream_json
from pipelines.media_folder import MediaFolder
from pipelines.questions import QuestionIds, annotators_answers, ask
from pipelines.raw_text import id_text
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError
from shards.media import MediaProblem

_SUBSET = re.compile(r"(train|val|test(?:-dev)?)(\d{4})")
_LISTS = ("questions", "annotations")
_FIELDS = ("question_id", "image_id", "question", "answers", "question_type", "answer_type")
_PICTURES_OF = {"test-dev2015": "test2015"}  # a list of fewer questions about the same pictures

Fields = Mapping[str, Any]


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
    questions, subset = _questions(config)
    answers = _answers(config)
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
    id = id_text(raw)
    if id is None or not (id.isascii() and id.isdecimal()):
        problem: Problem = ("missing_field", f"{where} has no image_id")
        return pictures.setdefault(where, Draft(id=where, stem=where, problem=problem))
    number = int(id)
    if id not in pictures:
        pictures[id] = Draft(
            id=id, stem=coco_stem(number), media=[Place(file=coco_file(folder, number, subset=subset))]
        )
    return pictures[id]


def _questions(config: Config) -> tuple[Sequence[Fields], str]:
    """The questions, and the pictures that they are about: `train2014`."""
    members: dict[str, Any] = {}
    questions = list(_rows(config.annotations, "questions", key="source.annotations", members=members))
    stated = members.get("data_subtype")
    found = _SUBSET.search(stated if isinstance(stated, str) else "") or _SUBSET.search(
        PurePath(config.annotations).name
    )
    subset = found.group(0) if found else "train2014"
    return questions, _PICTURES_OF.get(subset, subset)


def _answers(config: Config) -> dict[str, Fields] | None:
    """The annotations by question id, of their answers only the texts; None for a test split."""
    if config.answers is None:
        return None
    answers: dict[str, Fields] = {}
    holds: set[str] = set()
    for number, row in enumerate(_rows(config.answers, "annotations", key="source.answers", members={})):
        holds |= row.keys()
        if isinstance(row.get("answers"), list):
            row["answers"] = [_text(answer) for answer in row["answers"]]
        # The first of two wins, as its question does; a row without an id can belong to no question and is named by its place.
        answers.setdefault(id_text(row.get("question_id")) or f"annotations[{number}]", row)
    if "answers" not in holds:
        raise InputError(
            f"source.answers: no annotation of {config.answers} has `answers` (they hold: {', '.join(sorted(holds))}); "
            "give v2_mscoco_*_annotations.json"
        )
    return answers


def _text(answer: Any) -> Any:
    """What one annotator said; four million answers are a few thousand texts, so each is kept once."""
    text = answer.get("answer") if isinstance(answer, dict) else answer
    return sys.intern(text) if isinstance(text, str) else text


def _rows(path: str, name: str, *, key: str, members: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Stream one of the two lists, of each object what is read here; the file's other members go to `members`.

    Raises:
        InputError: it is the other one of the two files, or neither.
    """
    is_empty = True
    for member, value in stream_json(path, key=key, lists=(TOP, *_LISTS)):
        if member == name and isinstance(value, dict):
            is_empty = False
            yield {field: value[field] for field in _FIELDS if field in value}
        elif member in (TOP, *_LISTS):
            swapped = "; this looks like the other one of the two files" if member and member != name else ""
            raise _no_list(path, name, key=key, why=swapped)
        else:
            members[member] = value
    if is_empty:
        raise _no_list(path, name, key=key, why=f" (it holds: {', '.join(sorted(members))})")


def _no_list(path: str, name: str, *, key: str, why: str) -> InputError:
    return InputError(
        f"{key}: {path} has no list `{name}` of objects{why}; "
        "source.annotations is v2_OpenEnded_*_questions.json, source.answers is v2_mscoco_*_annotations.json"
    )
