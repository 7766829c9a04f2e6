"""COCO's objects: `instances_<split>.json`, a box and a category for every object of a picture.

    source.kind=coco_instances source.annotations=instances_val2017.json source.media=val2017

A crowd (`iscrowd`) is one box around many objects and no example of one; it is refused by name unless `crowds` asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pipelines.boxes import BoxedConfig, from_corner_and_size
from pipelines.coco_objects import CocoObjects, drawn_size, read_coco_objects
from pipelines.coco_pictures import coco_stem, picture_file
from pipelines.drafts import Draft, Place, Problem, drafted_from_files
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import id_text, is_broken, printable
from pipelines.source import Source, Target
from shards.media import MediaProblem
from shards.records import Detection

_SPLIT_IN_NAME = re.compile(r"(?:instances|person_keypoints)_(train|val|test)")


class Config(BoxedConfig):
    """`split` only names the split; unset, it is read off a name such as `instances_val2017.json`."""

    SPLIT_IN_NAME: ClassVar = _SPLIT_IN_NAME

    media: str
    """The folder that holds the pictures."""
    crowds: bool = False
    """Take boxes around crowds as well."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(
        folder, lambda: _pictures(config, folder), config=config, target=target, boxes=config.box_rule()
    )


def _pictures(config: Config, folder: MediaFolder) -> list[Draft]:
    """Join pictures and objects by image id; sorted by id, the second of two equal ids a reject of its own."""
    objects = read_coco_objects(config.annotations, key="source.annotations")
    pictures: dict[str, Draft] = {}
    repeated: list[Draft] = []
    for number, image in enumerate(objects.images):
        picture = _picture(image, objects, where=f"images[{number}]", folder=folder)
        if picture.id in pictures:
            picture.problem = ("duplicate_id", f"images[{number}] repeats the id of an earlier image")
            repeated.append(picture)
        else:
            pictures[picture.id] = picture
    taken: set[str] = set()
    for number, annotation in enumerate(objects.annotations):
        where = f"annotations[{number}]"
        image_id = id_text(annotation.get("image_id"))
        problem: Problem = ("missing_media", "objects name an image that `images` lacks")
        if image_id is None:
            image_id, problem = where, ("missing_field", f"{where} has no `image_id`")
        unlisted = Draft(id=image_id, stem=image_id, problem=problem)
        picture = pictures.setdefault(image_id, unlisted)
        with picture.refusing(printable(str(annotation.get("id", where)))):
            picture.annotations.append(
                _detection(annotation, objects.categories, where=where, crowds=config.crowds, taken=taken)
            )
    return sorted([*pictures.values(), *repeated], key=lambda picture: (len(picture.id), picture.id))


def _picture(image: Mapping[str, Any], objects: CocoObjects, *, where: str, folder: MediaFolder) -> Draft:
    id, file = id_text(image.get("id")), image.get("file_name")
    if id is None:
        return Draft(id=where, stem=where, problem=("missing_field", f"{where} has no `id`"))
    picture = Draft(id=id, stem=coco_stem(id), licence=objects.licence(image), size=drawn_size(image))
    if not isinstance(file, str) or not file:
        picture.problem = ("missing_field", f"{where} has no `file_name`")
    elif is_broken(file):
        picture.problem = ("broken_utf8", f"{where}: file_name {printable(file)}")
    else:
        picture.media.append(Place(file=picture_file(folder, file)))
    return picture


def _detection(
    annotation: Mapping[str, Any], categories: Mapping[str, str], *, where: str, crowds: bool, taken: set[str]
) -> Detection:
    """One object. Raises `MediaProblem` where it cannot be used, or is a crowd and crowds are not wanted."""
    id = id_text(annotation.get("id"))
    if id is not None and id in taken:
        raise MediaProblem("duplicate_id", f"{where} repeats the id of an earlier object")
    if id is not None:
        taken.add(id)
    if annotation.get("iscrowd") and not crowds:
        raise MediaProblem("filtered", f"{where} is a crowd; take crowds as well with source.crowds=true")
    category = id_text(annotation.get("category_id"))
    if category is None or category not in categories:
        raw = annotation.get("category_id")
        raise MediaProblem("missing_field", f"{where}: category_id {raw!r} is not among the categories")
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise MediaProblem("missing_field", f"{where} has no `bbox` of four numbers")
    return Detection(id=id, box=from_corner_and_size(*box, where=where), label=categories[category])
