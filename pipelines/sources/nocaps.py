"""nocaps: `nocaps_val_4500_captions.json` in COCO's layout, ten captions per OpenImages picture; the test file has none.

Each picture carries its domain (in, near or out of COCO's classes) as its split, so that scores can be told apart by it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import is_broken, printable, read_json
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError

_SPLIT_IN_NAME = re.compile(r"nocaps_(val|test)")


class Config(SourceConfig):
    """`split` only names the split; unset, it is read off the file's name."""

    SPLIT_IN_NAME: ClassVar = _SPLIT_IN_NAME

    media: str
    """The folder of the pictures, named as in `file_name`, or by their OpenImages id."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _pictures(config.annotations, folder), config=config, target=target)


def _pictures(path: str, folder: MediaFolder) -> list[Draft]:
    content = read_json(path, key="source.annotations")
    images, annotations = _rows(content, "images", path=path), _rows(content, "annotations", path=path)
    pictures: dict[str, Draft] = {}
    repeated: list[Draft] = []
    for number, image in enumerate(images):
        where = f"images[{number}]"
        id = str(image.get("id", where))
        draft = _picture(image, id=id, where=where, folder=folder)
        if id in pictures:
            draft.problem = ("duplicate_id", f"{where} repeats the id of an earlier image")
            repeated.append(draft)
        else:
            pictures[id] = draft
    taken: set[str] = set()
    for number, annotation in enumerate(annotations):
        where = f"annotations[{number}]"
        image_id = str(annotation.get("image_id", where))
        draft = pictures.setdefault(
            image_id,
            Draft(id=image_id, stem=image_id, problem=("missing_media", "captions name an image that `images` lacks")),
        )
        caption_id = str(annotation["id"]) if "id" in annotation else None
        if caption_id is not None and caption_id in taken:
            draft.refuse(caption_id, "duplicate_id", f"{where} repeats the id of an earlier caption")
            continue
        if caption_id is not None:
            taken.add(caption_id)
        draft.add_caption(annotation.get("caption"), id=caption_id, where=where)
    return sorted([*pictures.values(), *repeated], key=lambda draft: (len(draft.id), draft.id))


def _picture(image: Mapping[str, Any], *, id: str, where: str, folder: MediaFolder) -> Draft:
    domain = image.get("domain")
    draft = Draft(id=id, stem=id, split=printable(domain) if isinstance(domain, str) and domain else None)
    names = [name for name in (image.get("file_name"), _by_open_images_id(image)) if isinstance(name, str) and name]
    if not names:
        draft.problem = ("missing_field", f"{where} has neither `file_name` nor `open_images_id`")
    elif is_broken(names[0]):
        draft.problem = ("broken_utf8", f"{where}: file_name {printable(names[0])}")
    else:
        draft.media.append(Place(file=folder.first_there(names)))
    return draft


def _by_open_images_id(image: Mapping[str, Any]) -> str | None:
    id = image.get("open_images_id")
    return f"{id}.jpg" if isinstance(id, str) and id else None


def _rows(content: Any, name: str, *, path: str) -> Sequence[Mapping[str, Any]]:
    rows = content.get(name) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"source.annotations: {path} has no list `{name}` of objects; give nocaps_val_4500_captions.json "
            "(the test file holds no captions to store)"
        )
    return rows
