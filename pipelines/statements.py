"""NLVR and NLVR2 state something about pictures, true or false; their files differ only in the pictures they mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from pipelines.drafts import usable_text
from pipelines.json_lines import read_json_lines
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import is_broken
from shards.media import MediaProblem
from shards.records import Statement

_SPLIT_IN_NAME = re.compile(r"(train|dev|test\d?)(?=\.json)")
_IDENTIFIER = re.compile(r"[A-Za-z0-9-]+")
_FOLDER = re.compile(r"[A-Za-z0-9_-]+")
_TRUTH: Mapping[Any, bool] = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """One line of a file: the name of its statement, and what it says."""

    where: str
    identifier: str | None  # None: the line has none that can be used
    directory: str | None  # of its pictures, where the release deals them into numbered folders
    fields: Mapping[str, Any]

    def statement(self, id: str) -> Statement:
        """What the line says, under an id. Raises `MediaProblem` where it cannot be used; no label at all is a hidden one."""
        text = usable_text(self.fields.get("sentence"), what="sentence", where=self.where)
        raw = self.fields.get("label")
        label = None if raw is None else _TRUTH.get(str(raw).lower())
        if raw is not None and label is None:
            raise MediaProblem("unsupported", f"{self.where}: label {raw!r} is neither true nor false")
        return Statement(id=id, text=text, label=label)


def read_statements(path: str, *, what: str) -> Iterator[StatementLine]:
    """Read a file of statements in its order. Raises `InputError` for another file or a cut one."""
    for line in read_json_lines(path, key="source.annotations", must_have="identifier", what=what):
        identifier, directory = line.fields.get("identifier"), line.fields.get("directory")
        usable = isinstance(identifier, str) and _IDENTIFIER.fullmatch(identifier)
        named = isinstance(directory, str | int) and _FOLDER.fullmatch(str(directory))
        yield StatementLine(
            where=f"line {line.number}",
            identifier=str(identifier) if usable else None,
            directory=str(directory) if named else None,
            fields=line.fields,
        )


def split_in_name(path: str) -> str | None:
    """`dev.json` → `dev`, `balanced_test1.json` → `test1`."""
    found = _SPLIT_IN_NAME.search(PurePath(path).name)
    return found.group(1) if found else None


def find_picture(folder: MediaFolder, name: str, *, split: str, directory: str | None) -> str:
    """Where a picture lies below the media folder, at whichever level of the release that folder is.

    The releases put a picture into `images/<split>/<directory>/`, `<split>/images/<directory>/` or leave levels out.
    """
    levels: Sequence[str] = (
        "",
        "images/",
        f"{split}/",
        f"images/{split}/",
        f"{split}/images/",
    )
    ends = (name,) if directory is None else (f"{directory}/{name}", name)
    names = [f"{level}{end}" for level in levels for end in ends]
    return names[0] if is_broken(name) else folder.first_there(names)
