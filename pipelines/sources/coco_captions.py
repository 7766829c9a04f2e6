"""MS COCO captions in the official layout: `captions_<split>.json` and a folder of pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import is_broken, printable, read_json
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError

_SPLIT_IN_NAME = re.compile(r"captions_(train|val|test)")
_CREATIVE_COMMONS = re.compile(r"creativecommons\.org/licenses/([a-z-]+)/([0-9.]+)")
_ID_DIGITS = 12  # COCO's own file names pad the image id to twelve digits


class Config(SourceConfig):
    """`split` only names the split; where it is not given, it is read off a name such as `captions_val2017.json`."""

    media: str
    """The folder that holds the pictures."""

    def split_name(self) -> str:
        found = _SPLIT_IN_NAME.search(PurePath(self.annotations).name)
        return found.group(1) if self.split is None and found else super().split_name()


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _pictures(config.annotations), config=config, target=target)


def _pictures(path: str) -> list[Draft]:
    """Join `images` and `annotations` by image id; sorted by id, the second of two equal ids a reject of its own."""
    content = read_json(path, key="source.annotations")
    images, annotations = (_rows(content, name, path=path) for name in ("images", "annotations"))
    licences = _licences(content)
    first: dict[str, Draft] = {}
    repeated: list[Draft] = []
    for number, image in enumerate(images):
        picture = _picture(image, where=f"images[{number}]", licences=licences)
        if picture.id in first:
            picture.problem = ("duplicate_id", f"images[{number}] repeats the id of an earlier image")
            repeated.append(picture)
        else:
            first[picture.id] = picture
    taken: set[str] = set()
    for number, annotation in enumerate(annotations):
        where = f"annotations[{number}]"
        image_id = _id(annotation.get("image_id"), where=where)
        unlisted = Draft(
            id=image_id, stem=_stem(image_id), problem=("missing_media", "captions name an image that `images` lacks")
        )
        _add(first.setdefault(image_id, unlisted), annotation, where=where, taken=taken)
    return sorted([*first.values(), *repeated], key=lambda picture: (len(picture.id), picture.id))


def _rows(content: Any, name: str, *, path: str) -> list[Mapping[str, Any]]:
    rows = content.get(name) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        keys = ", ".join(sorted(content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"source.annotations: {path} has no list `{name}` of objects (it holds: {keys}); "
            "give the official captions_*.json of COCO"
        )
    if not rows:
        raise InputError(f"source.annotations: the list `{name}` of {path} is empty; give the official captions_*.json")
    if name == "annotations" and not any("caption" in row for row in rows):
        raise InputError(
            f"source.annotations: no annotation of {path} has a `caption` (they hold: {', '.join(sorted(rows[0]))}); "
            "give captions_*.json, not instances_*.json"
        )
    return rows


def _picture(image: Mapping[str, Any], *, where: str, licences: Mapping[Any, str]) -> Draft:
    id = _id(image.get("id"), where=where)
    picture = Draft(id=id, stem=_stem(id), licence=licences.get(_hashable(image.get("license"))))
    file = image.get("file_name")
    if "id" not in image:
        picture.problem = ("missing_field", f"{where} has no `id`")
    elif not isinstance(file, str) or not file:
        picture.problem = ("missing_field", f"{where} has no `file_name`")
    elif is_broken(file):
        picture.problem = ("broken_utf8", f"{where}: file_name {printable(file)}")
    else:
        picture.media.append(Place(file=file))
    return picture


def _add(picture: Draft, annotation: Mapping[str, Any], *, where: str, taken: set[str]) -> None:
    """Give a caption to its picture, unless an earlier annotation had the same id."""
    if "id" not in annotation:
        picture.add_caption(annotation.get("caption"), id=None, where=where)
        return
    id = _id(annotation["id"], where=where)
    if id in taken:
        picture.refuse(id, "duplicate_id", f"{where} repeats the id of an earlier annotation")
        return
    taken.add(id)
    picture.add_caption(annotation.get("caption"), id=id, where=where)


def _id(raw: Any, *, where: str) -> str:
    return printable(str(raw)) if isinstance(raw, int | str) and raw != "" else where


def _stem(id: str) -> str:
    return id.zfill(_ID_DIGITS) if id.isdecimal() else id


def _hashable(raw: Any) -> int | str | None:
    return raw if isinstance(raw, int | str) else None


def _licences(content: Mapping[str, Any]) -> dict[Any, str]:
    """Licence id → short name, `CC BY 2.0` where the licence's address says so, else the name as it stands."""
    names: dict[Any, str] = {}
    for licence in content.get("licenses") or ():
        found = _CREATIVE_COMMONS.search(str(licence.get("url")))
        name = f"CC {found.group(1).upper()} {found.group(2)}" if found else str(licence.get("name"))
        names[_hashable(licence.get("id"))] = name
    return names
