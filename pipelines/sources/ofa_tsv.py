"""The TSV files of OFA and UnIVAL, for every task: media as base64 inside a row, or as a path to a picture, clip or sound.

source.kind=ofa_tsv source.task=vqa source.annotations=vqa_train.tsv
source.kind=ofa_tsv source.annotations=mine.tsv source.columns.id=0 source.columns.image=1 source.columns.caption=2

Rows of one picture become one record with all their annotations, however far apart they stand; a picture inside the file is
read by its byte offset when its record is made. The files have columns of their own for every task (`pipelines/ofa_columns.py`);
`columns` moves them, or alone says which task it is. Answers keep the file's confidence as their weight.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Self

import xxhash
from pydantic import Field, NonNegativeInt, model_validator

from pipelines.boxes import BoxedConfig
from pipelines.drafts import Draft, DraftedSource, Place, PlainPlace
from pipelines.media_folder import MediaFolder, NamedFiles, is_remote
from pipelines.ofa_columns import COLUMN_NAMES, LAYOUTS, Layout, OfaTask, pretrain_kind, tasks_with
from pipelines.raw_text import check_file, is_broken, printable
from pipelines.source import Source, Target
from pipelines.text_items import numbered_stem
from shards.config import nearest
from shards.errors import InputError
from shards.media import MediaProblem
from shards.records import MediaKind

KEY = "source.annotations"
_SPLIT = re.compile(r"(train|valid|val|testA|testB|testdev|test|dev)(?![a-z])")
_ENDINGS: Mapping[str, MediaKind] = {
    **dict.fromkeys((".mp4", ".webm", ".avi", ".mkv", ".mov", ".m4v", ".flv"), "video"),
    **dict.fromkeys((".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus"), "audio"),
}
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
_SHORTEST_PICTURE = 40  # characters of base64; less is no picture, but may look like base64 as any word does
_ONE_ALPHABET = bytes.maketrans(b"-_", b"+/")


class Config(BoxedConfig):
    """`split` only names the split; unset, it is read off the file's name."""

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
            raise ValueError(f"which task is it? {why}; set task to one of {', '.join(found or LAYOUTS)}")
        return self

    def split_name(self) -> str:
        found = _SPLIT.search(Path(self.annotations).name)
        return found.group(1) if self.split is None and found else super().split_name()

    def layout(self) -> tuple[OfaTask, Layout, Mapping[str, int]]:
        """The task, how it is read, and where its columns are."""
        task = self.task or tasks_with(self.columns)[0]
        layout = LAYOUTS[task]
        return task, layout, {**layout.columns, **self.columns} if self.task else self.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One row as bytes; `offset` is where its first cell begins in the file."""

    number: int
    offset: int
    cells: list[bytes]

    def text(self, column: int) -> str:
        return self.cells[column].decode("utf-8", "surrogateescape")

    def address(self, column: int) -> dict[str, Any]:
        """Where a worker finds a cell again, and what makes another cell another unit."""
        before = sum(len(cell) + 1 for cell in self.cells[:column])
        digest = xxhash.xxh3_128_hexdigest(self.cells[column])
        return {"offset": self.offset + before, "size": len(self.cells[column]), "fingerprint": digest}


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media or str(Path(config.annotations).parent), follow_links=config.follow_links)
    return DraftedSource(
        _Rows(config, folder).drafts,
        target=target,
        load=lambda place: _load(place, config.annotations, folder),
        size=lambda place: place["at"]["size"] * 3 // 4 if "at" in place else folder.size(place["file"]),
        limit=config.limit,
        boxes=config.box_rule(),
    )


@dataclass(slots=True)
class _Rows:
    """Reads the rows of a file into drafts."""

    config: Config
    folder: MediaFolder
    _question_ids: set[str] = field(default_factory=set)
    _names: set[tuple[str, str]] = field(default_factory=set)

    def drafts(self) -> Iterator[Draft]:
        self._question_ids.clear()
        self._names.clear()
        task, layout, columns = self.config.layout()
        names = NamedFiles(self.folder)
        pictures: dict[tuple[str, str], Draft] = {}
        for row in _read(self.config.annotations):
            if row.number == 1:
                _check_first(row, layout, columns, task=task, path=self.config.annotations)
            draft = self._draft(row, columns, pictures)
            self._annotate(draft, row, layout, columns)
            if "image" not in columns:
                yield draft
            for place in draft.media:
                if place.file is not None:
                    names.note(place.file)
        yield from pictures.values()
        if "image" in columns:
            names.check(annotations=self.config.annotations)

    def _draft(self, row: _Row, columns: Mapping[str, int], pictures: dict[tuple[str, str], Draft]) -> Draft:
        """The item that a row belongs to: its picture's, or one of its own."""
        where = f"line {row.number}"
        id = _cell(row, columns, "id") or where
        if "image" not in columns:
            return Draft(id=printable(id), stem=numbered_stem(row.number))
        if columns["image"] >= len(row.cells):
            problem = ("missing_field", f"{where} has {len(row.cells)} columns")
            return pictures.setdefault((where, ""), Draft(id=where, stem=where, problem=problem))  # type: ignore[arg-type]
        raw = row.cells[columns["image"]].strip()
        kind = pretrain_kind({"type": _cell(row, columns, "type")}) if "type" in columns else ""
        image_id = _cell(row, columns, "image_id")
        identity = image_id or (raw.decode("utf-8", "replace") if b"." in raw else xxhash.xxh3_128_hexdigest(raw))
        known = pictures.get((identity, kind))
        if known is None:
            name = printable(image_id or id)
            if (kind, name) in self._names:  # row ids are unique only within each dataset that a mixed file was made of
                name = f"{name}-line{row.number}"
            self._names.add((kind, name))
            stem = name if image_id or "id" in columns else numbered_stem(row.number)
            known = pictures[identity, kind] = Draft(id=name, stem=f"{kind}-{stem}" if kind else stem)
            self._place(known, raw, row, columns["image"], where=where)
        return known

    def _place(self, draft: Draft, raw: bytes, row: _Row, column: int, *, where: str) -> None:
        if b"." in raw:  # base64 has no dot, and a path always has one
            file = raw.decode("utf-8", "surrogateescape")
            if is_broken(file):
                draft.problem = ("broken_utf8", f"{where}: {printable(file)}")
            elif is_remote(file):
                draft.problem = ("remote_media", f"{where}: URLs are not fetched")
            else:
                draft.media.append(Place(kind=_ENDINGS.get(PurePosixPath(file).suffix.lower(), "image"), file=file))
        elif raw:
            draft.media.append(Place(at=row.address(column)))
        else:
            draft.problem = ("missing_field", f"{where} has no picture")

    def _annotate(self, draft: Draft, row: _Row, layout: Layout, columns: Mapping[str, int]) -> None:
        where = f"line {row.number}"
        id = printable(_cell(row, columns, "id") or where)
        with draft.refusing(id):
            lacking = [name for name, column in columns.items() if column >= len(row.cells)]
            if layout.essential.intersection(lacking):
                raise MediaProblem("missing_field", f"{where} has {len(row.cells)} columns, and none for {lacking[0]}")
            if _is_another_picture(draft, row, columns):
                raise MediaProblem("duplicate_id", f"{where} shows another picture under the image id {draft.id}")
            if "question" in columns and "type" not in columns:
                if id in self._question_ids:
                    raise MediaProblem("duplicate_id", f"{where} repeats the id of an earlier question")
                self._question_ids.add(id)
            cells = {name: row.text(at) for name, at in columns.items() if name != "image" and at < len(row.cells)}
            layout.read(draft, cells, id, where)


def _is_another_picture(draft: Draft, row: _Row, columns: Mapping[str, int]) -> bool:
    if "image" not in columns or not draft.media:
        return False
    place = draft.media[0]
    raw = row.cells[columns["image"]]
    if place.at is None:
        return place.file != raw.strip().decode("utf-8", "surrogateescape")
    return bool(place.at["fingerprint"] != xxhash.xxh3_128_hexdigest(raw))


def _cell(row: _Row, columns: Mapping[str, int], name: str) -> str:
    column = columns.get(name)
    return row.text(column).strip() if column is not None and column < len(row.cells) else ""


def _read(path: str) -> Iterator[_Row]:
    """The rows of a file, literally: these files know no quoting, and captions are full of quotes."""
    check_file(path, key=KEY)
    with Path(path).open("rb") as file:
        offset = file.seek(3 if file.read(3) == b"\xef\xbb\xbf" else 0)
        number = 0
        for line in file:
            if line.strip():
                number += 1
                yield _Row(number=number, offset=offset, cells=line.rstrip(b"\r\n").split(b"\t"))
            offset += len(line)


def _load(place: PlainPlace, path: str, folder: MediaFolder) -> bytes:
    if "file" in place:
        return folder.read(place["file"])
    at = place["at"]
    with Path(path).open("rb") as file:
        file.seek(at["offset"])
        raw = file.read(at["size"])
    if xxhash.xxh3_128_hexdigest(raw) != at["fingerprint"]:
        raise InputError(f"{KEY}: {path} has changed since the run was planned; start again with another `output`")
    text = raw.strip().translate(_ONE_ALPHABET)  # OFA writes the url-safe alphabet or the standard one
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaProblem("not_media", f"no valid base64 ({error})") from error


def _check_first(row: _Row, layout: Layout, columns: Mapping[str, int], *, task: str, path: str) -> None:
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
