"""MS COCO captions in the official layout: `captions_<split>.json` and a folder of pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NoReturn

from pipelines.coco_objects import licence_names
from pipelines.coco_pictures import coco_stem, picture_file
from pipelines.drafts import Draft, Place, Problem, drafted_from_files
from pipelines.grouping import Repeats, grouped
from pipelines.json_stream import TOP, stream_json
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import id_text, is_broken, printable
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError

_SPLIT_IN_NAME = re.compile(r"captions_(train|val|test)")


class Config(SourceConfig):
    """`split` only names the split; where it is not given, it is read off a name such as `captions_val2017.json`."""

    SPLIT_IN_NAME: ClassVar = _SPLIT_IN_NAME

    media: str
    """The folder of the pictures (of 2014, or the same ones as of 2017), or the one that holds their folders."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _pictures(config.annotations, folder), config=config, target=target)


def _pictures(path: str, folder: MediaFolder) -> Iterator[Draft]:
    """Join `images` and `annotations` by image id; sorted by id, the second of two equal ids a reject of its own."""
    licences: dict[str, str] = {}
    ids = Repeats()
    for image_id, rows in grouped(_rows(path, licences, ids), order=lambda id: (len(id), id)):
        if not ids.is_settled:  # all rows have been read by now, and the licences, wherever in the file they stand
            ids.settle(lambda: _annotation_ids(path))
        images = [row[1:] for row in rows if row[0] == "image"]
        pictures = [_picture(image, number, licences=licences, folder=folder) for number, image in images]
        if not pictures:
            where = f"annotations[{rows[0][1]}]"
            problem: Problem = ("missing_media", "captions name an image that `images` lacks")
            if image_id == where:
                problem = ("missing_field", f"{where} has no `image_id`")
            pictures = [Draft(id=image_id, stem=coco_stem(image_id), problem=problem)]
        for repeated, (number, _) in zip(pictures[1:], images[1:], strict=True):
            repeated.problem = ("duplicate_id", f"images[{number}] repeats the id of an earlier image")
        for kind, number, *annotation in rows:
            if kind == "caption":
                _add(pictures[0], *annotation, where=f"annotations[{number}]", ids=ids)
        yield from pictures


def _rows(path: str, licences: dict[str, str], ids: Repeats) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Stream images and captions by image id; fills `licences` and `ids` on its way.

    Yields:
        `("image", number, {file_name, license, …})` or `("caption", number, id or None, number in `ids`, text)`.

    Raises:
        InputError: the file is not in the layout of COCO's captions.
    """
    members: set[str] = set()
    counts = {"images": 0, "annotations": 0}
    captioned = False
    for name, value in stream_json(path, key="source.annotations", lists=(TOP, *counts)):
        members.add(name)
        if name == "licenses":
            licences.update(licence_names(value))
        elif name in counts and isinstance(value, dict):
            number, counts[name] = counts[name], counts[name] + 1
            if name == "images":
                kept = {field: value[field] for field in ("id", "file_name", "license") if field in value}
                yield _id(value.get("id"), where=f"images[{number}]"), ("image", number, kept)
                continue
            captioned = captioned or "caption" in value
            where = f"annotations[{number}]"
            id = id_text(value.get("id"))
            at = None if id is None else ids.note(id)
            yield _id(value.get("image_id"), where=where), ("caption", number, id, at, value.get("caption"))
        elif name in counts or name == TOP:
            _refuse(path, name, members, is_empty=value == [])
    for name, count in counts.items():
        if not count:
            _refuse(path, name, members, is_empty=False)
    if not captioned:
        raise InputError(
            f"source.annotations: no annotation of {path} has a `caption`; give captions_*.json, not instances_*.json"
        )


def _refuse(path: str, name: str, members: set[str], *, is_empty: bool) -> NoReturn:
    if is_empty:
        raise InputError(f"source.annotations: the list `{name}` of {path} is empty; give the official captions_*.json")
    holds = ", ".join(sorted(members - {TOP})) or "a list"
    raise InputError(
        f"source.annotations: {path} has no list `{name or 'images'}` of objects (it holds: {holds}); "
        "give the official captions_*.json of COCO"
    )


def _annotation_ids(path: str) -> Iterator[str]:
    """The ids of all captions that have one, as `_rows` notes them."""
    for name, value in stream_json(path, key="source.annotations", lists=("images", "annotations")):
        if name == "annotations":
            id = id_text(value.get("id"))
            if id is not None:
                yield id


def _picture(image: Mapping[str, Any], number: int, *, licences: Mapping[str, str], folder: MediaFolder) -> Draft:
    where = f"images[{number}]"
    id = _id(image.get("id"), where=where)
    picture = Draft(id=id, stem=coco_stem(id), licence=licences.get(id_text(image.get("license")) or ""))
    file = image.get("file_name")
    if id == where:
        picture.problem = ("missing_field", f"{where} has no `id`")
    elif not isinstance(file, str) or not file:
        picture.problem = ("missing_field", f"{where} has no `file_name`")
    elif is_broken(file):
        picture.problem = ("broken_utf8", f"{where}: file_name {printable(file)}")
    else:
        picture.media.append(Place(file=picture_file(folder, file)))
    return picture


def _add(picture: Draft, id: str | None, at: int | None, text: Any, *, where: str, ids: Repeats) -> None:
    """Give a caption to its picture, unless an earlier annotation had the same id."""
    if id is not None and at is not None and ids.is_repeat(id, at):
        picture.refuse(id, "duplicate_id", f"{where} repeats the id of an earlier annotation")
        return
    picture.add_caption(text, id=id, where=where)


def _id(raw: Any, *, where: str) -> str:
    """An id as text; where it is none, its row stands for itself."""
    return id_text(raw) or where
