"""GQA: `<split>_balanced_questions.json` and its kin, one object of questions by id; also the list files that LXMERT made of them.

    source.kind=gqa source.annotations=train_balanced_questions.json source.media=images
    source.kind=gqa source.annotations=train_all_questions source.media=images

All questions of the training split come as a folder of ten files and are read as one. Pictures are Visual Genome's, named by
image id (`2354786.jpg`; test pictures as `n161313.jpg`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.grouping import Repeats, grouped
from pipelines.json_stream import TOP, stream_json
from pipelines.media_folder import MediaFolder
from pipelines.questions import ask
from pipelines.raw_text import id_text, printable
from pipelines.source import Source, SourceConfig, Target
from pipelines.visual_genome import VisualGenome
from shards.errors import InputError
from shards.media import MediaProblem
from shards.records import Answer

KEY = "source.annotations"
_SPLIT_IN_NAME = re.compile(r"^(train|val|valid|testdev|test|challenge|submission)")

_FIELDS = ("imageId", "img_id", "question", "sent", "answer", "label", "types")
Fields = Mapping[str, Any]


class Config(SourceConfig):
    """`split` only names the split; unset, it is read off the file's name."""

    SPLIT_IN_NAME: ClassVar = _SPLIT_IN_NAME

    media: str
    """The folder of the pictures, or the one that holds Visual Genome's `VG_100K` and `VG_100K_2`."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _pictures(config.annotations, folder), config=config, target=target)


def _pictures(path: str, folder: MediaFolder) -> Iterator[Draft]:
    """The pictures in the order of their ids, with their questions from all files."""
    release = VisualGenome(folder)
    ids = Repeats()
    for image_id, questions in grouped(_rows(path, ids), order=lambda id: id):
        if not ids.is_settled:
            ids.settle(lambda: (id for raw, _, _ in _questions(path) if (id := id_text(raw)) is not None))
        _, _, fields, where = questions[0]
        picture = Draft(id=image_id, stem=image_id)
        if _image_id(fields) is None:
            picture.problem = ("missing_field", f"{where} has no imageId")
        else:
            picture.media.append(Place(file=release.file(image_id)))
        for id, noted, fields, where in questions:
            with picture.refusing(id or where):
                if id is None or noted is None:
                    raise MediaProblem("missing_field", f"{where} has no question id")
                if ids.is_repeat(id, noted):
                    raise MediaProblem("duplicate_id", f"{where} repeats the id of an earlier question")
                types = fields.get("types")
                ask(
                    picture,
                    fields.get("question", fields.get("sent")),
                    id=id,
                    answers=_answers(fields, where=where),
                    where=where,
                    question_type=types.get("structural") if isinstance(types, dict) else None,
                    answer_type=types.get("semantic") if isinstance(types, dict) else None,
                )
        yield picture


def _rows(path: str, ids: Repeats) -> Iterator[tuple[str, tuple[str | None, int | None, Fields, str]]]:
    """Yield (image id, (question id, its number in `ids`, what is read of the question, its place))."""
    for raw, question, where in _questions(path):
        id = id_text(raw)
        kept = {name: question[name] for name in _FIELDS if name in question}
        yield _image_id(kept) or where, (id, None if id is None else ids.note(id), kept, where)


def _image_id(fields: Fields) -> str | None:
    return id_text(fields.get("imageId", fields.get("img_id")))


def _questions(path: str) -> Iterator[tuple[Any, Fields, str]]:
    """Yield (question id, question, place in its file) of either layout, file by file.

    Raises:
        InputError: a file holds no questions, or there is none.
    """
    files = sorted(Path(path).glob("*.json*")) if Path(path).is_dir() else [Path(path)]
    if not files:
        raise InputError(f"{KEY}: the folder {path} holds no JSON file; give train_all_questions or one of its files")
    for file in files:
        place = "" if len(files) == 1 else f"{file.name} "
        has_questions = False
        for number, (id, question) in enumerate(stream_json(str(file), key=KEY)):
            if not isinstance(question, dict) or "objects" in question:
                raise _no_questions(file, what="scene graphs" if isinstance(question, dict) else "something else")
            has_questions = has_questions or not {"question", "sent"}.isdisjoint(question)
            if id == TOP:
                yield question.get("question_id"), question, f"{place}[{number}]"
            else:
                yield id, question, f"{place}question {printable(id)}"
        if not has_questions:
            raise _no_questions(file, what="something else")


def _no_questions(file: Path, *, what: str) -> InputError:
    return InputError(
        f"{KEY}: {file} holds no questions but {what}; give GQA's train_balanced_questions.json or another *_questions.json"
    )


def _answers(question: Fields, *, where: str) -> tuple[Answer, ...]:
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
