"""MSVD captions: the corpus's CSV, `AllVideoDescriptions.txt` made of it, or a JSON list.

The CSV has `VideoID,Start,End,…,Language,Description`, captions in thirty languages; the text has `<clip> <caption>` lines, the
JSON objects of `id` and a `caption` list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pipelines.drafts import Draft, drafted_from_files
from pipelines.listed_media import ListedMedia, clip_name, listed_clips
from pipelines.media_folder import MediaFolder
from pipelines.msvd_clips import MsvdClips
from pipelines.raw_text import first_line, printable, read_headed_rows, read_json, read_rows
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError

_KEY = "source.annotations"
_COLUMNS = ("VideoID", "Start", "End", "Language", "Description")


class Config(SourceConfig):
    """`split` only names the split; the published ones (1,200, 100 and 670 clips) are chosen by `clips`."""

    LOCATIONS: ClassVar[tuple[str, ...]] = ("annotations", "media", "mapping", "clips")

    media: str
    """The folder of the clips `<youtube>_<start>_<end>`, in any depth and container; or of uncut videos `<youtube>`, of which
    the span is then noted."""
    mapping: str | None = None
    """`youtube_mapping.txt`, where the clips are called `vid<number>`."""
    clips: str | None = None
    """A list of clip ids, one per line: takes these alone."""
    language: str | None = "English"
    """Of the captions to take from the corpus's CSV; null takes all. The other files are English and do not say."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)

    def drafts() -> list[Draft]:
        files = MsvdClips(ListedMedia(folder, kind="video"), mapping=config.mapping)
        chosen = listed_clips(config.clips, key="source.clips")
        clips: dict[str, Draft] = {}
        for id, text, where in _captions(config):
            if chosen is not None and id not in chosen:
                continue
            if id not in clips:
                clips[id] = Draft(id=id, stem=id, media=[files.named(id)])
            clips[id].add_caption(text, id=None, where=where)
        return list(clips.values())

    return drafted_from_files(folder, drafts, config=config, target=target)


def _captions(config: Config) -> Iterator[tuple[str, Any, str]]:
    """Clip id, caption as found, and where that stands."""
    first = first_line(config.annotations, key=_KEY)
    if first.lstrip().startswith("["):
        yield from _from_json(config.annotations)
    elif first.startswith("VideoID,"):
        yield from _from_corpus(config.annotations, config.language)
    else:
        yield from _from_lines(config.annotations)


def _from_corpus(path: str, language: str | None) -> Iterator[tuple[str, Any, str]]:
    header, rows = read_headed_rows(path, key=_KEY, delimiter=",")
    if lacking := [name for name in _COLUMNS if name not in header]:
        raise InputError(
            f"{_KEY}: {path} has no column {lacking[0]}; give the corpus's own CSV or AllVideoDescriptions.txt"
        )
    there: set[str] = set()
    for row in rows:
        cells = dict.fromkeys(header, "") | dict(zip(header, (cell.strip() for cell in row.cells), strict=False))
        there.add(printable(cells["Language"]))
        if language in (None, cells["Language"]):
            clip = f"{cells['VideoID']}_{cells['Start']}_{cells['End']}"
            yield printable(clip), cells["Description"], f"row {row.number}"
    if language is not None and language not in there:
        raise InputError(
            f"source.language: no caption of {path} is in {language!r}; it has {', '.join(sorted(there))[:400]}"
        )


def _from_lines(path: str) -> Iterator[tuple[str, Any, str]]:
    for row in read_rows(path, key=_KEY, delimiter="\t"):
        line = "\t".join(row.cells).strip()
        if line.startswith("#"):  # the corpus's own heading
            continue
        id, _, text = line.partition(" ")
        if row.number == 1 and not text:
            raise InputError(f"{_KEY}: row 1 of {path} is not `<clip> <caption>`; give AllVideoDescriptions.txt")
        yield printable(id), text, f"row {row.number}"


def _from_json(path: str) -> Iterator[tuple[str, Any, str]]:
    clips = read_json(path, key=_KEY)
    if not clips or not all(isinstance(clip, dict) and "id" in clip and "caption" in clip for clip in clips):
        raise InputError(f"{_KEY}: {path} is no JSON list of objects with `id` and `caption`; see source.kind=msrvtt")
    for number, clip in enumerate(clips):
        captions = clip["caption"] if isinstance(clip["caption"], list) else [clip["caption"]]
        for place, text in enumerate(captions):
            yield clip_name(printable(str(clip["id"]))), text, f"[{number}].caption[{place}]"
