"""Anybody's table of pictures and captions: CSV, TSV, JSON Lines or Parquet, with pictures as paths, bytes or base64.

source.kind=table source.annotations=my.csv source.media=photos source.columns.image=file source.columns.caption=text
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pipelines.drafts import Draft, DraftedSource, Place, PlainPlace, Problem
from pipelines.media_folder import MediaFolder, NamedFiles, is_remote
from pipelines.raw_text import is_broken, printable
from pipelines.source import Source, SourceConfig, Target
from pipelines.tables import KEY, Table, TableRow, fingerprint, open_tables
from shards.config import Config as BaseConfig
from shards.config import nearest
from shards.errors import InputError
from shards.media import MediaProblem

ImageForm = Literal["path", "bytes", "base64"]
# How JPEG, PNG, GIF and WebP begin in base64, or a data URL; a path has a dot somewhere, base64 never has.
_BASE64_PICTURE = re.compile(r"(data:image/[a-z]+;base64,|/9j/|iVBORw0KGgo|R0lGOD|UklGR)[A-Za-z0-9+/]*={0,2}$")
_ID_DIGITS = 9  # of a row number in a key, so that keys sort as rows do


class Columns(BaseConfig):
    image: str
    """Column of the picture: a path, its bytes (also as `{bytes, path}`), or base64."""
    caption: str
    """Column of the caption, or of a list of captions; rows that repeat a picture add to its captions."""
    id: str | None = None
    """Column of the picture's id; unset: the path, or the row number where pictures lie inside the table."""


class Config(SourceConfig):
    """`annotations` may be a pattern such as `data/train-*.parquet`."""

    columns: Columns
    media: str | None = None
    """The folder that paths are relative to; unset: the table's own folder."""
    image_as: Literal["auto", "path", "bytes", "base64"] = "auto"
    """What the image column holds; `auto` looks at its type and its first value."""


def build(config: Config, target: Target) -> Source:
    return _TableSource(config).pictures(target)


class _TableSource:
    """Reads the tables for planning, and single cells of them where pictures lie inside."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._folder = MediaFolder(
            config.media or str(Path(config.annotations).parent), follow_links=config.follow_links
        )
        self._tables: dict[str, Table] = {}

    def pictures(self, target: Target) -> DraftedSource:
        return DraftedSource(self._drafts, target=target, load=self._load, size=self._size)

    def _drafts(self) -> Sequence[Draft]:
        columns = self._config.columns
        wanted = [column for column in (columns.image, columns.caption, columns.id) if column is not None]
        pictures: dict[str, Draft] = {}
        for name, table in self._open().items():
            _check_columns(table.columns(), columns, path=name)
            form = self._form(table)
            # Pictures in a binary file stay unread; in a text file they are read anyway and give the unit its fingerprint.
            read = [column for column in wanted if not (column == columns.image and table.holds_bytes(column))]
            for row in table.rows(list(dict.fromkeys(read))):
                _add(pictures, row, columns=columns, form=form, table=name)
        found = list(islice(pictures.values(), self._config.limit))
        names = NamedFiles(self._folder)
        for file in (place.file for picture in found for place in picture.media if place.file is not None):
            names.note(file)
        if self._config.media is not None:
            self._folder.check()
        names.check(annotations=self._config.annotations)
        return found

    def _open(self) -> dict[str, Table]:
        self._tables = self._tables or open_tables(self._config.annotations)
        return self._tables

    def _form(self, table: Table) -> ImageForm:
        """What the image column of a table holds."""
        column = self._config.columns.image
        if self._config.image_as != "auto":
            return self._config.image_as
        if table.holds_bytes(column):
            return "bytes"
        first = next((value for row in table.rows([column]) if (value := row.values[column])), "")
        return "base64" if isinstance(first, str) and _BASE64_PICTURE.match("".join(first.split())) else "path"

    def _load(self, place: PlainPlace) -> bytes:
        if "file" in place:
            return self._folder.read(place["file"])
        at = place["at"]
        value = self._open()[at["table"]].cell(at["address"], self._config.columns.image)
        if isinstance(value, Mapping):
            if value.get("bytes") is None and isinstance(value.get("path"), str):
                return self._folder.read(value["path"])
            value = value.get("bytes")
        if value is None:
            raise MediaProblem("missing_media", "the row holds no picture")
        return value if isinstance(value, bytes) else _decode_base64(value)

    def _size(self, place: PlainPlace) -> int | None:
        return self._folder.size(place["file"]) if "file" in place else None


def _add(pictures: dict[str, Draft], row: TableRow, *, columns: Columns, form: ImageForm, table: str) -> None:
    """Add a row's captions to its picture: a new one, or one that an earlier row had brought."""
    where = f"{table} row {row.number}"
    image = row.values.get(columns.image)
    inside = form != "path"
    id = _text_of(row.values.get(columns.id)) if columns.id else None if inside else _text_of(image)
    picture = pictures.get(id) if id else None
    if picture is None:
        picture = Draft(id=id or where, stem=_stem(id, row, table), problem=_problem(image, id, columns, form, where))
        _place(picture, image, row, table=table, form=form)
        pictures[picture.id] = picture
    elif _is_another_picture(picture, image, form):
        problem: Problem = ("duplicate_id", f"{where} gives the id {printable(picture.id)} to another picture")
        picture = pictures[where] = Draft(id=picture.id, stem=where, problem=problem)
    captions = _captions(row.values.get(columns.caption))
    for number, caption in enumerate(captions):
        picture.add_caption(caption, id=None, where=where if len(captions) == 1 else f"{where} caption {number}")


def _place(picture: Draft, image: Any, row: TableRow, *, table: str, form: ImageForm) -> None:
    """Say where the picture is: a file, or a cell that a worker reads again."""
    if picture.problem is not None:
        return
    if form == "path":
        picture.media.append(Place(file=image.strip()))
        return
    at = {"table": table, "address": dict(row.address), "fingerprint": fingerprint(image)}
    picture.media.append(Place(at=at))


def _problem(image: Any, id: str | None, columns: Columns, form: ImageForm, where: str) -> Problem | None:
    if columns.id is not None and id is None:
        return ("missing_field", f"{where} has nothing in column {columns.id}")
    if form == "bytes":
        return None
    if not isinstance(image, str) or not image.strip():
        return ("missing_field", f"{where} has nothing in column {columns.image}")
    if is_broken(image) or (id is not None and is_broken(id)):
        return ("broken_utf8", f"{where}: {printable(id or image[:80])}")
    if form == "path" and is_remote(image):
        return ("remote_media", f"{where}: URLs are not fetched")
    return None


def _is_another_picture(picture: Draft, image: Any, form: ImageForm) -> bool:
    """Whether a row that repeats an id brings a different picture; what was not read cannot differ."""
    if picture.problem is not None or not isinstance(image, str) or not image.strip():
        return False
    place = picture.media[0]
    if form == "path":
        return place.file != image.strip()
    return place.at is None or place.at["fingerprint"] != fingerprint(image)


def _stem(id: str | None, row: TableRow, table: str) -> str:
    if id is None:
        return f"{Path(table).stem}-{row.number:0{_ID_DIGITS}d}"
    return id.removesuffix(".jpg")


def _text_of(value: Any) -> str | None:
    text = "" if value is None or isinstance(value, bytes | Mapping | list) else str(value).strip()
    return text or None


def _captions(value: Any) -> Sequence[Any]:
    """One caption, or the captions of a list; a text cell may hold a list as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return (value,)  # a caption that happens to begin with a bracket
    return value if isinstance(value, list | tuple) else (value,)


def _decode_base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise MediaProblem("not_media", f"the image column holds {type(text).__name__}, not a picture")
    encoded = text.partition(";base64,")[2] or text  # data:image/jpeg;base64,…
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaProblem("not_media", f"no valid base64 ({error})") from error


def _check_columns(there: Sequence[str], columns: Columns, *, path: str) -> None:
    if not there:
        raise InputError(f"{KEY}: {path} has no columns; its first line must name them")
    for key, name in columns.model_dump().items():
        if name is not None and name not in there:
            raise InputError(f"source.columns.{key}: {path} has no column {name!r}: {nearest(name, there)}")
