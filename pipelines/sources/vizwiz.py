"""VizWiz-VQA: `<split>.json`, one spoken question of a blind person per picture, ten answers; the test split has none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pipelines.drafts import Draft, Place, Problem, drafted_from_files
from pipelines.media_folder import MediaFolder
from pipelines.questions import annotators_answers, ask
from pipelines.raw_text import is_broken, printable, read_json
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError

_SPLIT_IN_NAME = re.compile(r"^(train|val|test)\.")


class Config(SourceConfig):
    """`split` only names the split; unset, it is read off the file's name, `train.json`."""

    SPLIT_IN_NAME: ClassVar = _SPLIT_IN_NAME

    media: str
    """The folder of the pictures, or the one that holds `train`, `val` and `test`."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _pictures(config, folder), config=config, target=target)


def _pictures(config: Config, folder: MediaFolder) -> list[Draft]:
    pictures: dict[str, Draft] = {}
    for number, row in enumerate(_rows(config.annotations)):
        where = f"[{number}]"
        file = row.get("image")
        if not isinstance(file, str) or not file or is_broken(file):
            problem: Problem = ("missing_field", f"{where} names no picture")
            if isinstance(file, str) and file:
                problem = ("broken_utf8", f"{where}: {printable(file)}")
            picture = Draft(id=where, stem=where, problem=problem)
        elif file in pictures:
            picture = Draft(
                id=file, stem=where, problem=("duplicate_id", f"{where} repeats the picture {printable(file)}")
            )
        else:
            picture = Draft(
                id=file,
                stem=file.removesuffix(".jpg"),
                media=[Place(file=folder.first_there((file, f"{config.split_name()}/{file}")))],
            )
        pictures[file if picture.problem is None and isinstance(file, str) else where] = picture
        with picture.refusing(picture.id):
            # VizWiz also says which questions cannot be answered; their most frequent answer is then "unanswerable".
            answers = annotators_answers(row["answers"], where=where) if "answers" in row else ()
            ask(
                picture,
                row.get("question"),
                id=picture.id,
                answers=answers,
                where=where,
                answer_type=row.get("answer_type"),
            )
    return list(pictures.values())


def _rows(path: str) -> Sequence[Mapping[str, Any]]:
    rows = read_json(path, key="source.annotations")
    if (
        not isinstance(rows, list)
        or not rows
        or not all(isinstance(row, dict) for row in rows)
        or not any("question" in row and "image" in row for row in rows)
    ):
        raise InputError(
            f"source.annotations: {path} is no list of objects with `image` and `question`; "
            "give VizWiz's train.json, val.json or test.json"
        )
    return rows
