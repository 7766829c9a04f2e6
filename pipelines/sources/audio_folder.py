"""Labelled sounds: folders by class as ESC-50's kin have them, a label in the file's name, or a table of names and labels.

`004-Baby cry/x.mp3` is class 4, "Baby cry"; other folders are numbered in the order of their names. A pattern reads names such
as fsdd's `7_jackson_32.wav`. A table may be `esc50.csv`, DCASE's `meta.csv`, or any other with a column of files and one of labels.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import ClassVar

from pydantic import field_validator

from pipelines.drafts import Draft, Place, drafted_from_files, usable_text
from pipelines.listed_media import ListedMedia
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import first_line, is_broken, read_headed_rows
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError
from shards.records import Label

_NUMBERED = re.compile(r"(?P<index>\d+)[-_. ]+(?P<name>.+)")
_FILE_COLUMNS = ("filename", "file_name", "file", "slice_file_name", "fname", "path")
_NAME_COLUMNS = ("scene_label", "category", "label", "class", "class_name", "display_name", "labels")
_INDEX_COLUMNS = ("target", "index", "classID", "class_id", "label_index")


class Config(SourceConfig):
    """`split` names the split, and selects by `split_column` where that is set."""

    LOCATIONS: ClassVar[tuple[str, ...]] = ("annotations", "media", "classes")

    annotations: str = ""
    """The table of files and labels, with a header line; unset: the labels are in the names of folders or files."""
    media: str
    """The folder of the sounds, in any depth."""
    pattern: str | None = None
    """A regular expression for the start of a file's name without its ending, with a group `name`, `index` or both; it labels
    by file and not by folder."""
    classes: str | None = None
    """A table of the classes with columns for index and name (AudioSet's `class_labels_indices.csv`, or `esc50.csv` itself), where
    names or indices alone are given."""
    split_column: str | None = None
    """Column of the table that says the split (ESC-50: `fold`); rows with another value than `split` are left out."""

    @field_validator("pattern")
    @classmethod
    def _names_a_group(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        if not groups.keys() & {"name", "index"}:
            raise ValueError(f"{pattern!r} has no group (?P<name>…) or (?P<index>…)")
        return pattern


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(
        folder, lambda: _told_apart(_sounds(config, ListedMedia(folder, kind="audio"))), config=config, target=target
    )


def _sounds(config: Config, files: ListedMedia) -> Sequence[Draft]:
    classes = _Classes(config.classes)
    if config.annotations:
        return _from_table(config, files, classes)
    listed = files.all()
    if not listed:
        raise InputError(f"source.media: no sound is below {config.media}; point it at the folder of the sounds")
    if config.pattern is not None:
        return _from_names(listed, re.compile(config.pattern), classes)
    return _from_folders(listed, classes, media=config.media)


def _from_folders(files: Sequence[str], classes: _Classes, *, media: str) -> list[Draft]:
    folders = sorted({PurePosixPath(file).parent.name for file in files} - {""})
    if not folders:
        raise InputError(
            f"source.media: the sounds of {media} lie in no folders by class; name their table with source.annotations, or say "
            "with source.pattern where in a file's name its label is"
        )
    numbered = {folder: _NUMBERED.fullmatch(folder) for folder in folders}
    labels: dict[str, tuple[str, int]] = {}
    for rank, folder in enumerate(folders):
        number = numbered[folder]
        are_numbered = all(numbered.values())
        labels[folder] = (number["name"], int(number["index"])) if number and are_numbered else (folder, rank)
    sounds = []
    for file in files:
        name, index = labels.get(PurePosixPath(file).parent.name, ("", None))
        sounds.append(_labelled(file, name=name, index=index, classes=classes, where=file))
    return sounds


def _from_names(files: Sequence[str], pattern: re.Pattern[str], classes: _Classes) -> list[Draft]:
    sounds = []
    for file in files:
        found = pattern.match(PurePosixPath(file).stem)
        groups: Mapping[str, str | None] = found.groupdict() if found else {}
        sounds.append(
            _labelled(file, name=groups.get("name"), index=_index(groups.get("index")), classes=classes, where=file)
        )
    return sounds


def _from_table(config: Config, files: ListedMedia, classes: _Classes) -> list[Draft]:
    key = "source.annotations"
    header, rows = read_headed_rows(config.annotations, key=key, delimiter=_delimiter(config.annotations, key=key))
    file_column, name_column, index_column = (
        next((name for name in names if name in header), None)
        for names in (_FILE_COLUMNS, _NAME_COLUMNS, _INDEX_COLUMNS)
    )
    if file_column is None or (name_column is None and index_column is None):
        raise InputError(
            f"{key}: {config.annotations} has no column of files ({', '.join(_FILE_COLUMNS)}) and one of labels "
            f"({', '.join(_NAME_COLUMNS)}); it has {', '.join(header)[:200]}; source.kind=table takes any columns"
        )
    if config.split_column is not None and config.split_column not in header:
        raise InputError(f"source.split_column: {config.annotations} has no column {config.split_column!r}")
    first: dict[str, Draft] = {}
    others: list[Draft] = []
    for row in rows:
        cells = dict(zip(header, row.cells, strict=False))
        where = f"row {row.number}"
        if config.split_column and config.split and cells.get(config.split_column, "").strip() != config.split:
            continue
        name = cells.get(file_column, "").strip()
        if not name or is_broken(name):
            others.append(Draft(id=where, stem=where, problem=("missing_field", f"{where} names no usable file")))
            continue
        label, index = cells.get(name_column or ""), _index(cells.get(index_column or ""))
        sound = _labelled(files.name(name), name=label, index=index, classes=classes, where=where, id=name)
        if name in first:
            sound.problem = ("duplicate_id", f"{where} repeats the file of an earlier row")
            others.append(sound)
        first.setdefault(name, sound)
    return [*first.values(), *others]


class _Classes:
    """What a table of the classes adds: the name of an index, or the index of a name."""

    def __init__(self, path: str | None) -> None:
        self._name_of: dict[int, str] = {}
        if path is None:
            return
        key = "source.classes"
        header, rows = read_headed_rows(path, key=key, delimiter=_delimiter(path, key=key))
        names = next((name for name in _NAME_COLUMNS if name in header), None)
        indices = next((name for name in _INDEX_COLUMNS if name in header), None)
        if names is None or indices is None:
            raise InputError(f"{key}: {path} has no columns of index and name (it has {', '.join(header)[:200]})")
        for row in rows:
            cells = dict(zip(header, row.cells, strict=False))
            index = _index(cells.get(indices))
            if index is not None:
                self._name_of.setdefault(index, cells.get(names, "").strip())
        self._index_of = {name.casefold(): index for index, name in self._name_of.items()}

    def completed(self, name: str | None, index: int | None) -> tuple[str | None, int | None]:
        if not self._name_of:
            return (str(index) if name is None and index is not None else name), index
        if name is None and index is not None:
            return self._name_of.get(index), index
        if index is None and name is not None:
            return name, self._index_of.get(name.strip().casefold())
        return name, index


def _labelled(
    file: str, *, name: str | None, index: int | None, classes: _Classes, where: str, id: str | None = None
) -> Draft:
    sound = Draft(id=id or file, stem=(id or file).rsplit(".", 1)[0], media=[Place(kind="audio", file=file)])
    with sound.refusing(where):
        text, number = classes.completed(name, index)
        sound.annotations.append(Label(name=usable_text(text, what="label", where=where), index=number))
    return sound


def _told_apart(sounds: Sequence[Draft]) -> Sequence[Draft]:
    """Give sounds that differ in their endings alone the whole name in their keys."""
    counts = Counter(sound.stem for sound in sounds)
    for sound in sounds:
        if counts[sound.stem] > 1:
            sound.stem = sound.id
    return sounds


def _index(raw: str | None) -> int | None:
    return int(raw) if raw is not None and raw.strip().isdecimal() else None


def _delimiter(path: str, *, key: str) -> str:
    """Tab or comma by the header line; DCASE's tables are called `.csv` and use tabs."""
    return "\t" if "\t" in first_line(path, key=key) else ","
