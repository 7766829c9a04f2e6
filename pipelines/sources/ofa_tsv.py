"""The TSV files of OFA and UnIVAL, for every task: media as base64 inside a row, or as a path to a picture, clip or sound.

source.kind=ofa_tsv source.task=vqa source.annotations=vqa_train.tsv
source.kind=ofa_tsv source.annotations=mine.tsv source.columns.id=0 source.columns.image=1 source.columns.caption=2

Rows of one picture become one record with all their annotations, however far apart they stand; a picture inside the file is
read by its byte offset when its record is made. The files have columns of their own for every task (`pipelines/ofa_columns.py`);
`columns` moves them, or alone says which task it is. Answers keep the file's confidence as their weight.

OFA's own `vqa_train.tsv` and `vqa_val.tsv` give all questions of a picture the picture's number as their id; such questions get
ids such as `221282.1`. The answers of its `vqa_test.tsv` are made up.
"""

from __future__ import annotations

import base64
import binascii
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar, Self

import xxhash
from pydantic import Field, NonNegativeInt, model_validator

from pipelines.boxes import BoxedConfig
from pipelines.drafts import Draft, DraftedSource, Place, PlainPlace, folder_check
from pipelines.grouping import Repeats, grouped
from pipelines.listed_media import ENDINGS
from pipelines.media_folder import NOT_FETCHED, MediaFolder, is_remote
from pipelines.ofa_columns import COLUMN_NAMES, LAYOUTS, Layout, OfaTask, pretrain_kind, tasks_with
from pipelines.packed import folder_of, lines_of, open_raw, read_slice
from pipelines.raw_text import check_file, is_broken, printable
from pipelines.source import Source, Target
from pipelines.text_items import numbered_stem
from shards.config import nearest
from shards.errors import InputError
from shards.media import MediaProblem
from shards.records import MediaKind

KEY = "source.annotations"
_SPLIT = re.compile(r"(train|valid|val|testA|testB|testdev|test|dev)(?![a-z])")
_KINDS: Mapping[str, MediaKind] = {
    **dict.fromkeys(ENDINGS["audio"], "audio"),
    **dict.fromkeys(ENDINGS["video"], "video"),  # also of `.mp4`, which may be either
    ".gif": "image",
}
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
_SHORTEST_PICTURE = 40  # characters of base64; less is no picture, but may look like base64 as any word does
_ONE_ALPHABET = bytes.maketrans(b"-_", b"+/")


class Config(BoxedConfig):
    """`split` only names the split; unset, it is read off the file's name."""

    SPLIT_IN_NAME: ClassVar = _SPLIT

    task: OfaTask | None = None
    """What the file is for; unset: told by `columns`."""
    columns: dict[str, NonNegativeInt] = Field(default_factory=dict)
    """Column numbers, from 0, by name, where they are not the task's own."""
    media: str | None = None
    """The folder that paths are relative to; unset: the file's own folder."""

    @model_validator(mode="after")
    def _names_one_task(self) -> Self:
        for name in self.columns:
            if name not in COLUMN_NAMES:
                raise ValueError(f"columns.{name}: there is no such column: {nearest(name, sorted(COLUMN_NAMES))}")
        if self.task is None and len(found := tasks_with(self.columns)) != 1:
            told = f"its columns fit {', '.join(found)}" if found else "its columns fit no task"
            why = told if self.columns else "neither task nor columns are given"
            raise ValueError(f"which task is it? {why}; set source.task to one of {', '.join(found or LAYOUTS)}")
        return self

    def layout(self) -> tuple[OfaTask, Layout, Mapping[str, int]]:
        """The task, how it is read, and where its columns are."""
        task = self.task or tasks_with(self.columns)[0]
        layout = LAYOUTS[task]
        return task, layout, {**layout.columns, **self.columns} if self.task else self.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One row as bytes; `offset` is where its first cell begins in the file."""

    number: int
    offset: int
    cells: list[bytes]

    def text(self, column: int) -> str:
        return self.cells[column].decode("utf-8", "surrogateescape")

    def picture(self, column: int) -> str | tuple[int, int, str]:
        """The path in a cell, or where a worker finds the cell again and what makes another picture another unit."""
        raw = self.cells[column] if column < len(self.cells) else b""
        if b"." in raw:  # base64 has no dot, and a path always has one
            return self.text(column).strip()
        if not raw.strip():
            return ""
        before = sum(len(cell) + 1 for cell in self.cells[:column])
        return self.offset + before, len(raw), xxhash.xxh3_128_hexdigest(raw)


# A row on its way to its picture: number, the cells that are no picture by column name, and the picture.
_Row = tuple[int, dict[str, str], str | tuple[int, int, str]]


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media or str(folder_of(config.annotations)), follow_links=config.follow_links)
    return DraftedSource(
        lambda: _drafts(config),
        target=target,
        load=lambda place: _load(place, config.annotations, folder),
        size=lambda place: place["at"]["size"] * 3 // 4 if "at" in place else folder.size(place["file"]),
        limit=config.limit,
        boxes=config.box_rule(),
        check=folder_check(folder, annotations=config.annotations, required=config.media is not None),
    )


def _drafts(config: Config) -> Iterator[Draft]:
    """Every picture with what its rows say, or every row of a file without pictures, by first appearance."""
    _, layout, columns = config.layout()
    if "image" not in columns:
        for number, cells, _ in _rows(config):
            draft = Draft(id=printable(_id(number, cells)), stem=numbered_stem(number))
            _annotate(draft, number, cells, layout, id=draft.id)
            yield draft
        return
    repeats = (
        Repeats() if "question" in columns and "type" not in columns else None
    )  # a mixed file numbers each set anew
    for _, rows in grouped(_by_picture(config, repeats)):
        if repeats is not None and not repeats.is_settled:
            repeats.settle(lambda: (_id(number, cells) for number, cells, _ in _rows(config)))
        draft = _pictured(rows[0])
        asked: dict[str, list[str]] = {}  # under an id, about this picture
        for number, cells, picture in rows:
            id, question = _id(number, cells), cells.get("question", "").strip()
            if _content(picture) != _content(rows[0][2]):
                detail = f"line {number} shows another picture under the image id {draft.id}"
                draft.refuse(id, "duplicate_id", detail)
            elif repeats is None:
                _annotate(draft, number, cells, layout, id=id)
            elif repeats.is_repeat(id, number - 1) and (id not in asked or question in asked[id]):
                draft.refuse(id, "duplicate_id", f"line {number} repeats the id of an earlier question")
            else:
                _annotate(draft, number, cells, layout, id=f"{id}.{len(asked[id])}" if id in asked else id)
                asked.setdefault(id, []).append(question)
        yield draft


def _by_picture(config: Config, repeats: Repeats | None) -> Iterator[tuple[str, tuple[int, dict[str, str], Any]]]:
    """Yield (what to group by, row): a picture and, in a mixed file, the kind of annotation, as a record holds one kind."""
    for number, cells, picture in _rows(config):
        if repeats is not None:
            repeats.note(_id(number, cells))
        kind = pretrain_kind(cells) if "type" in cells else ""
        yield f"{kind}\0{cells.get('image_id', '').strip() or _content(picture) or number}", (number, cells, picture)


def _rows(config: Config) -> Iterator[_Row]:
    """Read the cells of every row that its task needs. Raises `InputError` where the first is of another task."""
    task, layout, columns = config.layout()
    for line in _read(config.annotations):
        if line.number == 1:
            _check_first(line, layout, columns, task=task, path=config.annotations)
        there = [(name, at) for name, at in columns.items() if name != "image" and at < len(line.cells)]
        picture = line.picture(columns["image"]) if "image" in columns else ""
        yield line.number, {name: line.text(at) for name, at in there}, picture


def _content(picture: str | tuple[int, int, str]) -> str:
    """The same for the same picture, wherever in the file it stands."""
    return picture if isinstance(picture, str) else picture[2]


def _id(number: int, cells: Mapping[str, str]) -> str:
    return printable(cells.get("id", "").strip()) or f"line {number}"


def _pictured(row: _Row) -> Draft:
    """The item of a picture, from its first row.

    Its key is made of the image id or else of the picture itself, and of the kind of annotation in a mixed file: row ids are
    unique only within one part of such a file, and line numbers change from file to file.
    """
    number, cells, picture = row
    where = f"line {number}"
    image_id = printable(cells.get("image_id", "").strip())
    stem = image_id or _content(picture).removesuffix(".jpg") or where
    kind = pretrain_kind(cells) if "type" in cells else ""
    draft = Draft(id=image_id or _id(number, cells), stem=f"{kind}-{stem}" if kind else stem)
    if not picture:
        draft.problem = ("missing_field", f"{where} has no picture")
    elif not isinstance(picture, str):
        offset, size, fingerprint = picture
        draft.media.append(Place(at={"offset": offset, "size": size, "fingerprint": fingerprint}))
    elif is_broken(picture):
        draft.problem = ("broken_utf8", f"{where}: {printable(picture)}")
    elif is_remote(picture):
        draft.problem = ("remote_media", f"{where}: {NOT_FETCHED}")
    else:
        ending = PurePosixPath(picture).suffix.lower()
        draft.media.append(Place(kind=_KINDS.get(ending, "image"), file=picture))
    return draft


def _annotate(draft: Draft, number: int, cells: Mapping[str, str], layout: Layout, *, id: str) -> None:
    where = f"line {number}"
    with draft.refusing(id):
        lacking = layout.essential - cells.keys() - {"image"}
        if lacking:
            raise MediaProblem("missing_field", f"{where} is too short and has no {', '.join(sorted(lacking))}")
        layout.read(draft, cells, id, where)


def _read(path: str) -> Iterator[_Line]:
    """The rows of a file, literally: these files know no quoting, and captions are full of quotes."""
    check_file(path, key=KEY)
    with open_raw(path, key=KEY) as file:
        offset = number = 0
        for line in lines_of(file, path=path, key=KEY):
            mark = len(BOM_UTF8) if offset == 0 and line.startswith(BOM_UTF8) else 0
            if line.strip():
                number += 1
                yield _Line(number=number, offset=offset + mark, cells=line[mark:].rstrip(b"\r\n").split(b"\t"))
            offset += len(line)


def _load(place: PlainPlace, path: str, folder: MediaFolder) -> bytes:
    if "file" in place:
        return folder.read(place["file"])
    at = place["at"]
    raw = read_slice(path, offset=at["offset"], size=at["size"], key=KEY)
    if xxhash.xxh3_128_hexdigest(raw) != at["fingerprint"]:
        raise InputError(f"{KEY}: {path} has changed since the run was planned; start again with another `output`")
    text = raw.strip().translate(_ONE_ALPHABET)  # OFA writes the url-safe alphabet or the standard one
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaProblem("not_media", f"no valid base64 ({error})") from error


def _check_first(row: _Line, layout: Layout, columns: Mapping[str, int], *, task: str, path: str) -> None:
    """See by the first row whether the file is of this task. Raises `InputError`."""
    needed = max(column for name, column in columns.items() if name not in layout.optional)
    if needed >= len(row.cells):
        named = ", ".join(f"{column} {name}" for name, column in sorted(columns.items(), key=lambda pair: pair[1]))
        raise InputError(
            f"{KEY}: the first line of {path} has {len(row.cells)} columns; {task} reads the columns {named} (from 0); "
            "set source.task to what the file is for, or source.columns to where its columns are"
        )
    if "image" in columns:
        raw = row.cells[columns["image"]].strip()
        if b"." not in raw and not (len(raw) >= _SHORTEST_PICTURE and _BASE64.fullmatch(raw)):
            raise InputError(
                f"{KEY}: column {columns['image']} of the first line of {path} is neither base64 nor a path "
                f"({printable(row.text(columns['image']))[:40]!r}); set source.task to what the file is for, or "
                "source.columns.image to the column of the pictures"
            )
