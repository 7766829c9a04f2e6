"""Questions about clips with one answer each, as MSRVTT-QA and MSVD-QA publish them: `{train,val,test}_qa.json`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from pipelines.drafts import Draft, Place, usable_text
from pipelines.questions import QuestionIds, ask
from pipelines.raw_text import printable, read_json
from shards.errors import InputError
from shards.media import MediaProblem
from shards.records import Answer

_SPLIT_IN_NAME = re.compile(r"(train|val|test)")


def split_of_questions(path: str) -> str | None:
    """The split that the name of a file such as `val_qa.json` carries."""
    found = _SPLIT_IN_NAME.search(PurePath(path).name)
    return found.group(1) if found else None


def clip_questions(path: str, *, place: Callable[[int | str], Place]) -> list[Draft]:
    """Collect the questions of each clip, in the order of the clips' numbers.

    Args:
        path: the JSON list of objects with `question`, `answer`, `video_id` and `id`.
        place: the file of a clip, by its `video_id`.

    Raises:
        InputError: it is no such list.
    """
    rows = _rows(path)
    is_answered = any("answer" in row for row in rows)
    clips: dict[str, Draft] = {}
    ids = QuestionIds()
    for number, row in enumerate(rows):
        where = f"[{number}]"
        clip = _clip(clips, row.get("video_id"), where=where, place=place)
        with clip.refusing(printable(str(row.get("id", where)))):
            id = ids.take(row.get("id"), where=where)
            answers: tuple[Answer, ...] = ()
            if is_answered:  # a test file without answers has none at all
                answers = (Answer(text=usable_text(row.get("answer"), what="answer", where=where)),)
            ask(clip, row.get("question"), id=id, answers=answers, where=where)
    return sorted(clips.values(), key=lambda clip: (len(clip.id), clip.id))


def _rows(path: str) -> list[Mapping[str, Any]]:
    rows = read_json(path, key="source.annotations")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"source.annotations: {path} is no JSON list of objects; give train_qa.json, val_qa.json or so"
        )
    if not any("question" in row and "video_id" in row for row in rows):
        raise InputError(
            f"source.annotations: no object of {path} has `question` and `video_id` (they hold: "
            f"{', '.join(sorted(rows[0]))}); give train_qa.json, val_qa.json or so"
        )
    return rows


def _clip(clips: dict[str, Draft], raw: Any, *, where: str, place: Callable[[int | str], Place]) -> Draft:
    if isinstance(raw, bool) or not isinstance(raw, int | str) or raw == "":
        return clips.setdefault(
            where, Draft(id=where, stem=where, problem=("missing_field", f"{where} has no video_id"))
        )
    id = printable(str(raw))
    if id not in clips:
        clips[id] = Draft(id=id, stem=id.zfill(6) if id.isdecimal() else id)
        try:
            clips[id].media.append(place(raw))
        except MediaProblem as problem:
            clips[id].problem = (problem.reason, problem.detail)
    return clips[id]
