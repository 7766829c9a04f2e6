"""The clips or sounds of a folder by name: annotation files name them without an ending, or the folders above are not known.

The folder is listed once, by the driver, and the names found travel with the units.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

from pipelines.media_folder import MediaFolder
from pipelines.raw_text import read_rows
from shards.errors import InputError

ENDINGS = {
    "video": (
        *(".mp4", ".webm", ".mkv", ".avi", ".mov", ".flv", ".mpg", ".mpeg", ".wmv", ".m4v", ".3gp", ".ts", ".m2ts"),
        *(".mts", ".vob", ".asf", ".ogv", ".gif"),
    ),
    "audio": (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".mp4", ".webm", ".mkv"),
}  # the first is what a file is called that is not there


class ListedMedia:
    """Finds files of one kind anywhere below a media folder. A remote folder is not listed: there a name is taken as it stands."""

    def __init__(self, folder: MediaFolder, *, kind: Literal["video", "audio"]) -> None:
        self._folder = folder
        self._endings = ENDINGS[kind]

    def all(self) -> list[str]:
        """Every file, by its path below the folder, sorted. Raises `InputError` for a remote folder."""
        if not self._folder.is_local:
            raise InputError(
                f"source.media: {self._folder.root} is remote, and its files cannot be listed here; copy it to a disk"
            )
        return self._files

    def stem(self, *stems: str) -> str:
        """The file with the first of these names without ending that is there; what the first would be called otherwise."""
        found = (self._by_stem.get(_spelt(stem)) for stem in stems)
        return next((file for file in found if file is not None), stems[0] + self._endings[0])

    def has_stem(self, stem: str) -> bool:
        return _spelt(stem) in self._by_stem

    def has_name(self, name: str) -> bool:
        return _spelt(name) in self._by_name

    def name(self, name: str) -> str:
        """The file of this path or, failing that, of this name in any folder; the path itself where there is none."""
        if self.has_name(name) or "/" in name:
            return self._by_name.get(_spelt(name), name)
        return self._by_stem.get(_spelt(PurePosixPath(name).stem), name)

    @cached_property
    def _files(self) -> list[str]:
        return sorted(self._walk()) if self._folder.is_local else []

    @cached_property
    def _by_stem(self) -> dict[str, str]:
        return {_spelt(PurePosixPath(file).stem): file for file in self._ranked}

    @cached_property
    def _by_name(self) -> dict[str, str]:
        ranked = sorted(self._files, key=lambda file: (file.count("/"), file), reverse=True)
        return {_spelt(PurePosixPath(file).name): file for file in ranked} | {
            _spelt(file): file for file in self._files
        }

    @property
    def _ranked(self) -> list[str]:
        """The files, the best last: of several with one name the shallowest is taken, and a sound before the clip it is of."""
        order = {ending: rank for rank, ending in enumerate(self._endings)}
        key = {file: (file.count("/"), order[PurePosixPath(file).suffix.lower()], file) for file in self._files}
        return sorted(self._files, key=key.__getitem__, reverse=True)

    def _walk(self) -> Iterator[str]:
        root = Path(self._folder.root)
        for folder, _, names in os.walk(root, followlinks=self._folder.follow_links):
            below = Path(folder).relative_to(root)
            for name in names:
                if not name.startswith(".") and name.lower().endswith(self._endings):
                    yield (below / name).as_posix()


def _spelt(name: str) -> str:
    """The one spelling by which names are compared: archives from macOS write `ä` as two characters where tables have one."""
    return unicodedata.normalize("NFC", name)


def clip_name(raw: str) -> str:
    """The name of a clip, which some files of a dataset write with an ending and others without."""
    return PurePosixPath(raw).stem if raw.lower().endswith(ENDINGS["video"]) else raw


def listed_clips(path: str | None, *, key: str) -> frozenset[str] | None:
    """The clips of a list file that chooses a split: one id per line, or a CSV with a column `video_id`; None takes all.

    Raises:
        InputError: there is no such file, or it names nothing.
    """
    if path is None:
        return None
    rows = [row.cells for row in read_rows(path, key=key, delimiter=",")]
    header = [cell.strip() for cell in rows[0]] if rows else []
    column = header.index("video_id") if "video_id" in header else None
    cells = [row[column or 0].strip() for row in (rows if column is None else rows[1:]) if len(row) > (column or 0)]
    found = frozenset(clip_name(cell) for cell in cells)
    if not found:
        raise InputError(f"{key}: {path} names no clip; it takes one id per line, or a CSV with a column `video_id`")
    return found
