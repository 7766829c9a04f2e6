"""AudioCaps: `{train,val,test}.csv` of `audiocap_id,youtube_id,start_time,caption`, on ten seconds of a video each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar, Literal

from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.listed_media import ListedMedia
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import printable, read_headed_rows
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError

_KEY = "source.annotations"
_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
_CLIP_S = 10.0  # what every caption of AudioCaps is about, by its definition
_SPLIT_IN_NAME = re.compile(r"(train|val|test)")


class Config(SourceConfig):
    """`split` only names the split; unset, it is read off the file's name."""

    SPLIT_IN_NAME: ClassVar = _SPLIT_IN_NAME

    media: str
    """The folder of the sounds, in any depth: `<youtube_id>_<start>`, `<youtube_id>`, `Y<youtube_id>` or `<audiocap_id>`, with
    the ending of any sound or clip."""
    files: Literal["cut", "whole"] = "cut"
    """Whether each file is the ten seconds that its captions are about, or all of the video; then the span is noted."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(
        folder, lambda: _sounds(config, ListedMedia(folder, kind="audio")), config=config, target=target
    )


def _sounds(config: Config, files: ListedMedia) -> list[Draft]:
    """The captions of one stretch of one video together: validation and test have five, on rows of their own."""
    sounds: dict[str, Draft] = {}
    taken: set[str] = set()
    for cells, where in _rows(config.annotations):
        youtube, start = cells["youtube_id"].strip(), _seconds(cells["start_time"])
        if not youtube or start is None:
            what = "youtube_id" if not youtube else f"start_time in seconds ({cells['start_time']!r})"
            sounds[where] = Draft(id=where, stem=where, problem=("missing_field", f"{where} has no {what}"))
            sounds[where].add_caption(cells["caption"], id=None, where=where)
            continue
        id = f"{printable(youtube)}_{start:g}"
        caption_id = printable(cells["audiocap_id"].strip())
        if id not in sounds:
            place = _place(youtube, start, caption_id=caption_id, config=config, files=files)
            sounds[id] = Draft(id=id, stem=id, media=[place])
        if caption_id in taken:
            sounds[id].refuse(caption_id, "duplicate_id", f"{where} repeats an earlier audiocap_id")
            continue
        taken |= {caption_id} if caption_id else set()
        sounds[id].add_caption(cells["caption"], id=caption_id or None, where=where)
    return list(sounds.values())


def _place(youtube: str, start: float, *, caption_id: str, config: Config, files: ListedMedia) -> Place:
    if config.files == "whole":
        return Place(kind="audio", file=files.stem(youtube, f"Y{youtube}"), span=(start, start + _CLIP_S))
    end = start + _CLIP_S
    names = (
        f"{youtube}_{start:g}",
        f"{youtube}_{start:g}_{end:g}",
        f"{youtube}_{start * 1000:.0f}_{end * 1000:.0f}",  # in milliseconds, as AudioSet's downloaders write it
    )
    prefixed = tuple(f"Y{name}" for name in names)
    return Place(kind="audio", file=files.stem(*names, *prefixed, youtube, f"Y{youtube}", *filter(None, [caption_id])))


def _rows(path: str) -> Iterator[tuple[dict[str, str], str]]:
    header, rows = read_headed_rows(path, key=_KEY, delimiter=",")
    if not set(_COLUMNS) <= set(header):
        raise InputError(
            f"{_KEY}: {path} has not the columns {', '.join(_COLUMNS)} (it has {', '.join(header)[:200]}); "
            "give AudioCaps' train.csv, val.csv or test.csv"
        )
    for row in rows:
        yield dict.fromkeys(header, "") | dict(zip(header, row.cells, strict=False)), f"row {row.number}"


def _seconds(raw: str) -> float | None:
    try:
        value = float(raw)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
