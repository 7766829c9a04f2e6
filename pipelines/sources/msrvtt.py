"""MSR-VTT captions: `MSRVTT_data.json` or `*_videodatainfo.json`, the CSV of the retrieval split, or a list by file name.

The whole corpus: `{"videos": [{"video_id", "split", …}], "sentences": [{"video_id", "caption", "sen_id"}]}`; its clips are
`video<number>.mp4`. The retrieval test of 1,000 clips: `key,vid_key,video_id,sentence`. By file name:
`{"clip.mp4": ["caption", …]}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, ClassVar

from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.listed_media import ListedMedia, listed_clips
from pipelines.media_folder import MediaFolder
from pipelines.packed import plain_name
from pipelines.raw_text import check_file, printable, read_headed_rows, read_json
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError

_KEY = "source.annotations"
_SPELT = {"val": "validate", "validation": "validate"}  # the corpus's own name of the split


class Config(SourceConfig):
    """`split` selects `train`, `validate` or `test` where the file knows of splits, and names the split elsewhere."""

    LOCATIONS: ClassVar[tuple[str, ...]] = ("annotations", "media", "clips")

    media: str
    """The folder of the clips, in any depth and container."""
    clips: str | None = None
    """A list of clip ids, one per line or a CSV with `video_id` (such as the 9,000 of the retrieval split): takes these alone."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(
        folder, lambda: _clips(config, ListedMedia(folder, kind="video")), config=config, target=target
    )


def _clips(config: Config, files: ListedMedia) -> list[Draft]:
    """Read whichever layout it is; in the order of the clips' numbers."""
    check_file(config.annotations, key=_KEY)
    if plain_name(config.annotations).lower().endswith(".csv"):
        clips = _from_csv(config.annotations, files)
    else:
        content = read_json(config.annotations, key=_KEY)
        if not isinstance(content, dict) or not content:
            raise InputError(f"{_KEY}: {config.annotations} is no JSON object; give MSRVTT_data.json or its like")
        is_corpus = "videos" in content and "sentences" in content
        clips = _from_corpus(content, config, files) if is_corpus else _from_list(content, config.annotations, files)
    chosen = listed_clips(config.clips, key="source.clips")
    return sorted(
        (clip for clip in clips if chosen is None or clip.id in chosen), key=lambda clip: (len(clip.id), clip.id)
    )


def _from_corpus(content: Mapping[str, Any], config: Config, files: ListedMedia) -> Iterable[Draft]:
    videos, sentences = (_objects(content, name, path=config.annotations) for name in ("videos", "sentences"))
    wanted = _SPELT.get(config.split, config.split) if config.split else None
    clips: dict[str, Draft] = {}
    repeated: list[Draft] = []
    others: set[str] = set()  # clips of other splits, whose sentences are not of this dataset
    for number, video in enumerate(videos):
        where = f"videos[{number}]"
        id, split = _name(video.get("video_id")) or where, _name(video.get("split"))
        clip = Draft(id=id, stem=_stem(id), split=split, media=[Place(kind="video", file=files.stem(id))])
        if wanted is not None and split not in {None, wanted}:
            others.add(id)
        elif id == where:
            clips[id] = Draft(id=id, stem=id, problem=("missing_field", f"{where} has no video_id"))
        elif id in clips:
            clip.problem = ("duplicate_id", f"{where} repeats the id of an earlier video")
            repeated.append(clip)
        else:
            clips[id] = clip
    if wanted is not None and not clips:
        known = ", ".join(sorted({str(video.get("split")) for video in videos}))
        raise InputError(f"source.split: no video of {config.annotations} is of the split {wanted!r}; it has {known}")
    taken: set[str] = set()
    for number, sentence in enumerate(sentences):
        where = f"sentences[{number}]"
        video_id = _name(sentence.get("video_id")) or where
        if video_id in others and video_id not in clips:
            continue
        unlisted = Draft(
            id=video_id, stem=_stem(video_id), problem=("missing_media", "`videos` does not list this clip")
        )
        clip = clips.setdefault(video_id, unlisted)
        caption_id = _name(sentence.get("sen_id"))
        if caption_id is not None and caption_id in taken:
            clip.refuse(caption_id, "duplicate_id", f"{where} repeats the id of an earlier sentence")
            continue
        taken |= {caption_id} if caption_id is not None else set()
        clip.add_caption(sentence.get("caption"), id=caption_id, where=where)
    return [*clips.values(), *repeated]


def _from_csv(path: str, files: ListedMedia) -> Iterable[Draft]:
    header, rows = read_headed_rows(path, key=_KEY, delimiter=",")
    if "video_id" not in header or "sentence" not in header:
        raise InputError(
            f"{_KEY}: {path} has no columns `video_id` and `sentence` (it has {', '.join(header)[:200]}); a list of clips "
            "without captions belongs into source.clips"
        )
    clips: dict[str, Draft] = {}
    for row in rows:
        cells = dict(zip(header, row.cells, strict=False))
        where = f"row {row.number}"
        id = _name(cells.get("video_id"))
        if id is None:
            clips[where] = Draft(id=where, stem=where, problem=("missing_field", f"{where} has no video_id"))
        clip = clips.get(id or where)
        if clip is None:
            clip = Draft(
                id=id or where, stem=_stem(id or where), media=[Place(kind="video", file=files.stem(id or where))]
            )
            clips[clip.id] = clip
        clip.add_caption(cells.get("sentence"), id=_name(cells.get("key")), where=where)
    return clips.values()


def _from_list(content: Mapping[str, Any], path: str, files: ListedMedia) -> Iterable[Draft]:
    if not all(isinstance(captions, list | str) for captions in content.values()):
        raise InputError(
            f"{_KEY}: {path} has neither `videos` and `sentences` nor captions by file name (it holds: "
            f"{', '.join(sorted(content))[:200]}); give MSRVTT_data.json, *_videodatainfo.json or a list by file name"
        )
    for name, captions in content.items():
        clip = Draft(id=name, stem=_stem(PurePath(name).stem), media=[Place(kind="video", file=files.name(name))])
        for place, text in enumerate([captions] if isinstance(captions, str) else captions):
            clip.add_caption(text, id=None, where=f"{name}[{place}]")
        yield clip


def _objects(content: Mapping[str, Any], name: str, *, path: str) -> list[Mapping[str, Any]]:
    rows = content[name]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{_KEY}: `{name}` of {path} is no list of objects; download or unpack the file again")
    return rows


def _name(raw: Any) -> str | None:
    return printable(str(raw)) if isinstance(raw, int | str) and not isinstance(raw, bool) and raw != "" else None


def _stem(id: str) -> str:
    """`video7` as `video0007`, so that keys sort as the clips do."""
    number = id.removeprefix("video")
    return f"video{number.zfill(5)}" if number.isdecimal() and number != id else id
