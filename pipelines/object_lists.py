"""Annotation files that are one JSON list of objects, read one object at a time; and the ids of their questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipelines.grouping import Repeats
from pipelines.json_stream import TOP, stream_json
from pipelines.raw_text import printable
from shards.errors import InputError
from shards.media import MediaProblem

Fields = Mapping[str, Any]


def read_objects_of(
    path: str, *, key: str, is_right: Callable[[Fields], bool], wanted: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the objects of a list; at its end it is clear whether it was the right file.

    Args:
        path: the file.
        key: the config key that named it, for messages.
        is_right: whether an object could be of the wanted file; one that is so is enough.
        wanted: what objects must hold and which file has such, for the message.

    Yields:
        (number from 0, object).

    Raises:
        InputError: the file is no list of objects, or no object is right.
    """
    right, first = False, "nothing"
    for number, (name, value) in enumerate(stream_json(path, key=key)):
        if name != TOP or not isinstance(value, dict):
            raise InputError(f"{key}: {path} is no list of objects; {wanted}")
        if number == 0:
            first = ", ".join(sorted(value))
        right = right or is_right(value)
        yield number, value
    if not right:
        raise InputError(
            f"{key}: {path} is no list of objects that are wanted here (the first holds: {printable(first)}); {wanted}"
        )


class NotedIds:
    """The ids of questions, noted in the order of the file, so that the second of two is told when they come in groups."""

    def __init__(self, again: Callable[[], Iterator[Fields]]) -> None:
        """`again` reads the same objects once more, which is needed only where ids may repeat."""
        self._repeats = Repeats()
        self._again = again

    def note(self, row: Fields) -> int | None:
        """Take the id of the next object; returns its number, None where it has none."""
        id = _id_of(row)
        return None if id is None else self._repeats.note(id)

    def take(self, row: Fields, noted: int | None, *, where: str) -> str:
        """The id of an object, once all have been noted. Raises `MediaProblem` where it has none or an earlier one had it."""
        id = _id_of(row)
        if id is None or noted is None:
            raise MediaProblem("missing_field", f"{where} has no question id")
        if not self._repeats.is_settled:
            self._repeats.settle(lambda: (id for row in self._again() if (id := _id_of(row)) is not None))
        if self._repeats.is_repeat(id, noted):
            raise MediaProblem("duplicate_id", f"{where} repeats the id of an earlier question")
        return id


def _id_of(row: Fields) -> str | None:
    raw = row.get("question_id")
    return None if isinstance(raw, bool) or not isinstance(raw, int | str) or raw == "" else printable(str(raw))
