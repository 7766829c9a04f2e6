"""The clips of the Microsoft Research video corpus (MSVD): cut from YouTube, and under two kinds of name.

A clip is `<youtube>_<start>_<end>` in the captions and `vid<number>` in the questions; `youtube_mapping.txt` joins them.
"""

from __future__ import annotations

import re

from pipelines.drafts import Place
from pipelines.listed_media import ListedMedia
from pipelines.raw_text import read_rows
from shards.errors import InputError

_CLIP = re.compile(r"(?P<youtube>.+)_(?P<start>\d+)_(?P<end>\d+)")
_NUMBERED = re.compile(r"vid\d+")


class MsvdClips:
    """Finds the file of a clip under any of its names, or the part of an uncut video that it was cut from."""

    def __init__(self, listed: ListedMedia, *, mapping: str | None) -> None:
        self._listed = listed
        self._number_of = read_mapping(mapping) if mapping else {}
        self._clip_of = {number: clip for clip, number in self._number_of.items()}

    def named(self, clip: str) -> Place:
        """The place of the clip `<youtube>_<start>_<end>`."""
        names = [clip, self._number_of[clip]] if clip in self._number_of else [clip]
        cut = _CLIP.fullmatch(clip)
        if cut and not any(self._listed.has_stem(name) for name in names) and self._listed.has_stem(cut["youtube"]):
            return Place(
                kind="video", file=self._listed.stem(cut["youtube"]), span=(float(cut["start"]), float(cut["end"]))
            )
        return Place(kind="video", file=self._listed.stem(*names))

    def numbered(self, number: int | str) -> Place:
        """The place of the clip `vid<number>`."""
        name = f"vid{number}"
        if name in self._clip_of and not self._listed.has_stem(name):
            return self.named(self._clip_of[name])
        return Place(kind="video", file=self._listed.stem(name, str(number)))


def read_mapping(path: str) -> dict[str, str]:
    """Read `youtube_mapping.txt`: `<youtube>_<start>_<end> vid<number>` on each line. Raises `InputError` for any other file."""
    mapping: dict[str, str] = {}
    for row in read_rows(path, key="source.mapping", delimiter="\t"):
        cells = " ".join(row.cells).split()
        if len(cells) != 2 or not _NUMBERED.fullmatch(cells[1]):
            raise InputError(
                f"source.mapping: row {row.number} of {path} is not `<clip> vid<number>`; give youtube_mapping.txt"
            )
        mapping[cells[0]] = cells[1]
    return mapping
