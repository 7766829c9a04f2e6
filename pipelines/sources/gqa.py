"""GQA: `<split>_balanced_questions.json` and its kin, one object of questions by id; also the list files that LXMERT made of them.

Pictures are Visual Genome's, named by image id (`2354786.jpg`; test pictures as `n161313.jpg`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.media_folder import MediaFolder
from pipelines.questions import QuestionIds, ask
from pipelines.raw_text import is_broken, read_json
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError
from shards.media import MediaProblem
from shards.records import Answer

_SPLIT_IN_NAME = re.compile(r"^(train|val|valid|testdev|test|challenge|submission)")


class Config(SourceConfig):
    """`split` only names the split; unset, it is read off the file's name."""

    SPLIT_IN_NAME: ClassVar = _SPLIT_IN_NAME

    media: str
    """The folder of the pictures."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _pictures(config.annotations), config=config, target=target)


def _pictures(path: str) -> list[Draft]:
    pictures: dict[str, Draft] = {}
    ids = QuestionIds()
    for raw_id, question, where in _questions(path):
        image = question.get("imageId", question.get("img_id"))
        if not isinstance(image, str | int) or image == "" or is_broken(str(image)):
            picture = pictures.setdefault(
                where, Draft(id=where, stem=where, problem=("missing_field", f"{where} has no imageId"))
            )
        else:
            id = str(image)
            picture = pictures.setdefault(id, Draft(id=id, stem=id, media=[Place(file=f"{id}.jpg")]))
        with picture.refusing(str(raw_id)):
            types = question.get("types")
            ask(
                picture,
                question.get("question", question.get("sent")),
                id=ids.take(raw_id, where=where),
                answers=_answers(question, where=where),
                where=where,
                question_type=types.get("structural") if isinstance(types, dict) else None,
                answer_type=types.get("semantic") if isinstance(types, dict) else None,
            )
    return sorted(pictures.values(), key=lambda picture: picture.id)


def _questions(path: str) -> Iterator[tuple[Any, Mapping[str, Any], str]]:
    """Yield (question id, question, place in the file) of either layout."""
    content = read_json(path, key="source.annotations")
    rows: Any = content.values() if isinstance(content, dict) else content
    if (
        not isinstance(content, dict | list)
        or not content
        or not all(isinstance(row, dict) for row in rows)
        or not any({"question", "sent"} & row.keys() for row in rows)
    ):
        scenes = isinstance(content, dict) and any(isinstance(row, dict) and "objects" in row for row in rows)
        raise InputError(
            f"source.annotations: {path} holds no questions"
            + (" but scene graphs" if scenes else "")
            + "; give GQA's train_balanced_questions.json or another *_questions.json"
        )
    if isinstance(content, dict):
        yield from ((id, question, f"question {id}") for id, question in content.items())
    else:
        yield from ((row.get("question_id"), row, f"[{number}]") for number, row in enumerate(content))


def _answers(question: Mapping[str, Any], *, where: str) -> tuple[Answer, ...]:
    """One answer; a list file may have several with a score; a test file none."""
    label = question.get("label")
    if isinstance(label, dict):
        scores = {text: score for text, score in label.items() if isinstance(score, int | float) and score > 0}
        return tuple(
            Answer(text=text, weight=float(score)) for text, score in sorted(scores.items(), key=lambda pair: -pair[1])
        )
    answer = question.get("answer")
    if answer is None:
        return ()
    if not isinstance(answer, str) or not answer.strip():
        raise MediaProblem("empty_text", f"{where} has an empty answer")
    return (Answer(text=answer.strip()),)
