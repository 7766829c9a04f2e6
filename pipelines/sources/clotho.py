"""Clotho: `clotho_captions_<split>.csv` of `file_name,caption_1..caption_5`, and a folder of WAV files."""

from __future__ import annotations

import re
from typing import ClassVar

from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.listed_media import ListedMedia
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import is_broken, printable, read_headed_rows
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError
from shards.records import RejectReason

_KEY = "source.annotations"
_CAPTION = re.compile(r"caption_\d+")
_SPLIT_IN_NAME = re.compile(r"(development|validation|evaluation)")


class Config(SourceConfig):
    """`split` only names the split; unset, it is read off a name such as `clotho_captions_development.csv`."""

    SPLIT_IN_NAME: ClassVar = _SPLIT_IN_NAME

    media: str
    """The folder of the sounds, or the one above it."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(
        folder, lambda: _sounds(config.annotations, ListedMedia(folder, kind="audio")), config=config, target=target
    )


def _sounds(path: str, files: ListedMedia) -> list[Draft]:
    header, rows = read_headed_rows(path, key=_KEY, delimiter=",")
    columns = [name for name in header if _CAPTION.fullmatch(name)]
    if "file_name" not in header or not columns:
        raise InputError(
            f"{_KEY}: {path} has no columns `file_name` and `caption_1` (it has {', '.join(header)[:200]}); "
            "give clotho_captions_*.csv"
        )
    first: dict[str, Draft] = {}
    others: list[Draft] = []  # without a usable name, or with that of an earlier row
    for row in rows:
        cells = dict(zip(header, row.cells, strict=False))
        where = f"row {row.number}"
        raw = cells.get("file_name", "")
        name = raw if files.has_name(raw) else raw.strip()  # some names do begin or end with a space
        if not name or is_broken(name):
            reason: RejectReason = "broken_utf8" if name else "missing_field"
            sound = Draft(
                id=where, stem=where, problem=(reason, f"{where} has no usable file_name: {printable(name)!r}")
            )
            others.append(sound)
        elif name in first:
            sound = Draft(
                id=name, stem=where, problem=("duplicate_id", f"{where} repeats the file_name of an earlier row")
            )
            others.append(sound)
        else:
            stem = name.removesuffix(".wav")
            sound = first[name] = Draft(id=name, stem=stem, media=[Place(kind="audio", file=files.name(name))])
        for column in columns:
            sound.add_caption(
                cells.get(column),
                id=f"{printable(name) or where}#{column.removeprefix('caption_')}",
                where=f"{where}, {column}",
            )
    return [*first.values(), *others]
