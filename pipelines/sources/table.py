"""Anybody's table: CSV, TSV, JSON Lines or Parquet; any media as paths, bytes or base64; any annotation, by naming its columns.

source.kind=table source.annotations=my.csv source.media=photos source.columns.image=file source.columns.caption=text
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pipelines.boxes import BoxedConfig
from pipelines.drafts import Draft, DraftedSource, Place, PlainPlace, Problem, folder_check
from pipelines.grouping import grouped
from pipelines.media_folder import NOT_FETCHED, MediaFolder, is_remote
from pipelines.packed import folder_of
from pipelines.raw_text import is_broken, printable
from pipelines.source import Source, Target
from pipelines.table_columns import BoxForm, Columns, annotations_of, as_text
from pipelines.tables import KEY, Table, TableRow, fingerprint, open_tables
from shards.config import nearest
from shards.errors import InputError
from shards.media import MediaProblem

MediaForm = Literal["path", "bytes", "base64"]
# How JPEG, PNG, GIF and WebP begin in base64, or a data URL; a path has a dot somewhere, base64 never has.
_BASE64_MEDIA = re.compile(
    r"(data:[a-z]+/[a-z0-9.+-]+;base64,|/9j/|iVBORw0KGgo|R0lGOD|UklGR|AAAA[A-Za-z0-9+/]{4}Z0eX)[A-Za-z0-9+/]*={0,2}$"
)
_ID_DIGITS = 9  # of a row number in a key, so that keys sort as rows do
_USUAL_ENDINGS = (".jpg", ".mp4", ".wav")  # left out of keys


class Config(BoxedConfig):
    """`annotations` may be a pattern such as `data/train-*.parquet`. Rows that repeat a media item add annotations to it."""

    columns: Columns
    media: str | None = None
    """The folder that paths are relative to; unset: the table's own folder."""
    media_as: Literal["auto", "path", "bytes", "base64"] = "auto"
    """What the media columns hold; `auto` looks at their type and their first value."""
    box_as: BoxForm = "x0y0x1y1"
    """What the four numbers of a box are."""


def build(config: Config, target: Target) -> Source:
    return _TableSource(config).drafted(target)


class _TableSource:
    """Reads the tables for planning, and single cells of them where media lie inside."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._columns = config.columns
        self._folder = MediaFolder(config.media or str(folder_of(config.annotations)), follow_links=config.follow_links)
        self._tables: dict[str, Table] = {}

    def drafted(self, target: Target) -> DraftedSource:
        config = self._config
        return DraftedSource(
            self._drafts,
            target=target,
            load=self._load,
            size=lambda place: self._folder.size(place["file"]) if "file" in place else None,
            limit=config.limit,
            boxes=config.box_rule(),
            check=folder_check(self._folder, annotations=config.annotations, required=config.media is not None),
        )

    def _drafts(self) -> Iterator[Draft]:
        for _, rows in grouped(self._rows()):
            yield from self._items(rows)

    def _rows(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Yield (what to group by, (table, number, id, media, cells, surplus)) of every row; media are `Place`s as plain values."""
        for name, table in self._open().items():
            self._check_columns(table.columns([column for _, column in self._columns.columns()]), path=name)
            forms = {column: self._form(table, column) for column, _ in self._columns.media}
            # Media in a binary file stay unread; in a text file they are read anyway and give the unit its fingerprint.
            read = {column for _, column in self._columns.columns()} - {c for c in forms if table.bytes_in(c) == "one"}
            for row in table.rows(sorted(read)):
                media = [
                    place
                    for column, kind in self._columns.media
                    for place in self._places(row, column, kind, table=name, form=forms[column])
                ]
                id = self._id(row, media)
                yield (
                    id or f"{name} row {row.number}",
                    (
                        name,
                        row.number,
                        id,
                        media,
                        self._columns.cells(row.values),
                        row.surplus,
                    ),
                )

    def _places(
        self, row: TableRow, column: str, kind: str, *, table: str, form: MediaForm
    ) -> Iterator[dict[str, Any]]:
        """Where the media of one cell are: one, or each of a list; an empty dictionary for a cell that has none."""
        value = row.values.get(column)
        if form == "path" and isinstance(value, str) and value.lstrip().startswith("["):
            value = _parsed(value)
        listed = isinstance(value, list)
        if value == []:
            yield {}
        for number, part in enumerate(value if isinstance(value, list) else [value]):
            if form == "path":
                usable = isinstance(part, str) and part.strip()
                yield {"kind": kind, "file": self._file(part)} if usable else {}
                continue
            if form == "base64" and not (isinstance(part, str) and part.strip()):
                yield {}
                continue
            at = {"table": table, "address": dict(row.address), "column": column, "fingerprint": fingerprint(part)}
            yield {"kind": kind, "at": at | ({"element": number} if listed else {})}

    def _file(self, cell: str) -> str:
        """The name in a cell, without the white space around it unless that belongs to it."""
        name = cell.strip()
        return name if name == cell else self._folder.first_there((name, cell))

    def _id(self, row: TableRow, media: Sequence[Mapping[str, Any]]) -> str | None:
        """What names the media item of a row; None where nothing does, so that each row is one of its own."""
        if self._columns.id is not None:
            return _text(row.values.get(self._columns.id))
        files = [place["file"] for place in media if "file" in place]
        return "|".join(files) if files and len(files) == len(media) else None

    def _items(self, rows: Sequence[tuple[Any, ...]]) -> Iterator[Draft]:
        """The media item of some rows, and an item of its own for each row that brings another under the same id."""
        table, number, id, media, *_ = rows[0]
        where = f"{table} row {number}"
        problem = self._problem(id, media, where)
        stem = f"{Path(table).stem}-{number:0{_ID_DIGITS}d}" if id is None else _without_ending(id)
        first = Draft(id=id or where, stem=stem, problem=problem)
        if problem is None:
            first.media.extend(_place(place) for place in media)
        others: list[Draft] = []
        for table, number, _, again, cells, surplus in rows:
            where = f"{table} row {number}"
            draft = first
            if problem is None and _differ(media, again):
                wrong: Problem = ("duplicate_id", f"{where} gives the id {printable(first.id)} to another media item")
                draft = Draft(id=first.id, stem=where, problem=wrong)
                others.append(draft)
            if surplus:
                what = f"{where} has {surplus} more cells than the header; put texts that hold commas in quotes"
                draft.refuse(where, "unsupported", what)
                continue
            kind, boxes = self._columns.annotation, self._config.box_as
            for place, found in annotations_of(cells, kind, boxes=boxes, where=where):
                if isinstance(found, MediaProblem):
                    draft.refuse(place, found.reason, found.detail)
                else:
                    draft.annotations.append(found)
        yield first
        yield from others

    def _problem(self, id: str | None, media: Sequence[Mapping[str, Any]], where: str) -> Problem | None:
        if self._columns.id is not None and id is None:
            return ("missing_field", f"{where} has nothing in column {self._columns.id}")
        if id is not None and is_broken(id):
            return ("broken_utf8", f"{where}: {printable(id)}")
        for place in media:
            if not place:
                return ("missing_field", f"{where} has nothing in column {self._columns.media[0][0]}")
            file = place.get("file", "")
            if is_broken(file):
                return ("broken_utf8", f"{where}: {printable(file)}")
            if is_remote(file):
                return ("remote_media", f"{where}: {NOT_FETCHED}")
        if self._columns.annotation == "statement" and len(media) != 2:
            return ("missing_media", f"{where} has {len(media)} pictures; a statement is about two")
        return None

    def _open(self) -> dict[str, Table]:
        self._tables = self._tables or open_tables(self._config.annotations)
        return self._tables

    def _form(self, table: Table, column: str) -> MediaForm:
        """What a media column of a table holds."""
        if self._config.media_as != "auto":
            return self._config.media_as
        if table.bytes_in(column) != "none":
            return "bytes"
        first = next((value for row in table.rows([column]) if (value := row.values[column])), "")
        first = first[0] if isinstance(first, list) else first
        return "base64" if isinstance(first, str) and _BASE64_MEDIA.match("".join(first.split())) else "path"

    def _load(self, place: PlainPlace) -> bytes:
        if "file" in place:
            return self._folder.read(place["file"])
        at = place["at"]
        value = self._open()[at["table"]].cell(at["address"], at["column"])
        if "element" in at:
            value = value[at["element"]]
        if isinstance(value, Mapping):
            if value.get("bytes") is None and isinstance(value.get("path"), str):
                return self._folder.read(value["path"])
            value = value.get("bytes")
        if value is None:
            raise MediaProblem("missing_media", f"the row holds nothing in column {at['column']}")
        return value if isinstance(value, bytes) else _decode_base64(value)

    def _check_columns(self, there: Sequence[str], *, path: str) -> None:
        if not there:
            raise InputError(f"{KEY}: {path} has no columns; its first line must name them")
        for key, name in self._columns.columns():
            if name not in there:
                raise InputError(f"source.columns.{key}: {path} has no column {name!r}: {nearest(name, there)}")


def _place(plain: Mapping[str, Any]) -> Place:
    return Place(kind=plain["kind"], file=plain.get("file"), at=plain.get("at"))


def _differ(media: Sequence[Mapping[str, Any]], again: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a row that repeats an id brings other media; a row without any just adds, and what was not read cannot differ."""
    if not all(again):
        return False
    return [_content(place) for place in media] != [_content(place) for place in again]


def _content(place: Mapping[str, Any]) -> Any:
    return place.get("file") or place["at"]["fingerprint"]


def _without_ending(id: str) -> str:
    return next((id.removesuffix(ending) for ending in _USUAL_ENDINGS if id.endswith(ending)), id)


def _text(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else as_text(value)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text  # a path that happens to begin with a bracket


def _decode_base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise MediaProblem("not_media", f"the column holds {type(text).__name__}, neither bytes nor base64")
    encoded = text.partition(";base64,")[2] or text  # data:image/jpeg;base64,…
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaProblem("not_media", f"no valid base64 ({error})") from error
