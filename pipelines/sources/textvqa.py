"""TextVQA: `TextVQA_0.5.1_<split>.json`, questions about texts in pictures, ten answers each, none in the test split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pipelines.drafts import Draft, drafted_from_files
from pipelines.media_folder import MediaFolder
from pipelines.open_images import SPLIT_IN_NAME, open_images_draft, open_images_rows
from pipelines.questions import QuestionIds, annotators_answers, ask
from pipelines.source import Source, SourceConfig, Target


class Config(SourceConfig):
    """`split` only names the split; unset, it is read off the file's name."""

    SPLIT_IN_NAME: ClassVar = SPLIT_IN_NAME

    media: str
    """The folder of the pictures (`train_images`, `test_images`), or the one above it."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _pictures(config, folder), config=config, target=target)


def _pictures(config: Config, folder: MediaFolder) -> list[Draft]:
    rows = open_images_rows(config.annotations, must_have="question", what="TextVQA_*.json")
    pictures: dict[str, Draft] = {}
    ids = QuestionIds()
    for number, row in enumerate(rows):
        where = f"data[{number}]"
        picture = open_images_draft(pictures, row, where=where, folder=folder)
        with picture.refusing(str(row.get("question_id", where))):
            id = ids.take(row.get("question_id"), where=where)
            answers = annotators_answers(row["answers"], where=where) if _is_answered(row) else ()
            ask(picture, row.get("question"), id=id, answers=answers, where=where)
    return list(pictures.values())


def _is_answered(row: Mapping[str, Any]) -> bool:
    return row.get("set_name") != "test" and row.get("answers") is not None
