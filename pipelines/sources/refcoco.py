"""RefCOCO, RefCOCO+ and RefCOCOg as REFER publishes them: `refs(<owner>).p` with the expressions, `instances.json` with the boxes.

    source.kind=refcoco source.annotations='refcoco/refs(unc).p' source.instances=refcoco/instances.json
    source.media=train2014 source.split=train

The pickle is read by `pipelines.plain_pickle`, so no code can run from it. One record is one picture with all its expressions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import field_validator

from pipelines.boxes import BoxedConfig, from_corner_and_size
from pipelines.coco_objects import CocoObjects, drawn_size, is_id, read_coco_objects
from pipelines.coco_pictures import coco_stem, picture_file
from pipelines.drafts import Draft, Place, Problem, drafted_from_files, usable_text
from pipelines.media_folder import MediaFolder
from pipelines.plain_pickle import read_plain_pickle
from pipelines.raw_text import is_broken, printable
from pipelines.source import Source, Target
from shards.errors import InputError
from shards.media import MediaProblem
from shards.records import Grounding

_SPLITS = re.compile(r"[A-Za-z0-9]+(\+[A-Za-z0-9]+)*")
_OBJECT_IN_NAME = re.compile(r"(COCO_[a-z]+\d{4}_\d{12})_\d+(\.jpg)")  # refs name the picture and the object in it

Row = Mapping[str, Any]


class Config(BoxedConfig):
    """`split` selects: `train`, `val`, `testA`, `testB`, `test`, or several as `testA+testB`; unset takes all of them."""

    LOCATIONS: ClassVar = ("annotations", "instances", "media")

    instances: str
    """`instances.json` from the same folder as the references: the boxes that `ann_id` names."""
    media: str
    """The folder of COCO's pictures (2014, or the same ones as of 2017), or the one that holds their folders."""

    @field_validator("split")
    @classmethod
    def _names_joined_by_plus(cls, split: str | None) -> str | None:
        if split is not None and not _SPLITS.fullmatch(split):
            raise ValueError(f"{split!r} is no split; write train, val, testA, testB, test, or several as testA+testB")
        return split


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(
        folder, lambda: _pictures(config, folder), config=config, target=target, boxes=config.box_rule()
    )


def _pictures(config: Config, folder: MediaFolder) -> list[Draft]:
    """The pictures that the references of the wanted splits name, sorted by image id."""
    objects = read_coco_objects(config.instances, key="source.instances")
    images = {image["id"]: image for image in objects.images if is_id(image.get("id"))}
    boxes = {row["id"]: row for row in objects.annotations if is_id(row.get("id"))}
    pictures: dict[str, Draft] = {}
    splits: dict[str, set[str]] = {}
    taken: set[str] = set()
    for number, ref in _selected(_refs(config.annotations), config):
        where = f"refs[{number}]"
        picture = _picture(pictures, ref, images, objects, where=where, folder=folder)
        splits.setdefault(picture.id, set()).add(str(ref.get("split")))
        sentences = ref.get("sentences")
        if not isinstance(sentences, Sequence) or isinstance(sentences, str) or not sentences:
            picture.refuse(where, "missing_field", f"{where} has no list of sentences")
            continue
        for place, sentence in enumerate(sentences):
            at = f"{where}.sentences[{place}]"
            fields = sentence if isinstance(sentence, Mapping) else {}
            with picture.refusing(str(fields["sent_id"]) if is_id(fields.get("sent_id")) else at):
                picture.annotations.append(_grounding(fields, ref, boxes, where=at, taken=taken))
    for id, found in splits.items():
        pictures[id].split = "+".join(sorted(found))  # RefCOCOg's `google` splits deal objects, not pictures
    return sorted(pictures.values(), key=lambda picture: (len(picture.id), picture.id))


def _refs(path: str) -> Sequence[Row]:
    refs = read_plain_pickle(path, key="source.annotations")
    if (
        not isinstance(refs, list)
        or not refs
        or not all(isinstance(ref, dict) for ref in refs)
        or not any("sentences" in ref and "ann_id" in ref for ref in refs)
    ):
        raise InputError(
            f"source.annotations: {path} is no list of references with `sentences` and `ann_id`; "
            "give REFER's refs(unc).p, refs(google).p or refs(umd).p"
        )
    return refs


def _selected(refs: Sequence[Row], config: Config) -> Sequence[tuple[int, Row]]:
    """The references of the wanted splits with their places in the file."""
    if config.split is None:
        return tuple(enumerate(refs))
    there = Counter(printable(str(ref.get("split"))) for ref in refs)
    wanted = set(config.split.split("+"))
    for name in sorted(wanted - set(there)):
        known = ", ".join(f"{split} ({count:,})" for split, count in sorted(there.items()))
        raise InputError(f"source.split: {config.annotations} has no split {name!r}; it has {known}")
    return tuple((number, ref) for number, ref in enumerate(refs) if str(ref.get("split")) in wanted)


def _picture(
    pictures: dict[str, Draft],
    ref: Row,
    images: Mapping[int, Row],
    objects: CocoObjects,
    *,
    where: str,
    folder: MediaFolder,
) -> Draft:
    """The picture of a reference: the one that an earlier reference brought, or a new one."""
    raw = ref.get("image_id")
    if not is_id(raw):
        problem: Problem = ("missing_field", f"{where} has no image_id")
        return pictures.setdefault(where, Draft(id=where, stem=where, problem=problem))
    id = str(raw)
    if id in pictures:
        return pictures[id]
    image = images.get(raw, {})
    picture = Draft(id=id, stem=coco_stem(raw), licence=objects.licence(image), size=drawn_size(image))
    name = image.get("file_name", ref.get("file_name"))
    if not isinstance(name, str) or not name:
        picture.problem = ("missing_field", f"neither {where} nor the instances name the file of picture {id}")
    elif is_broken(name):
        picture.problem = ("broken_utf8", f"{where}: file_name {printable(name)}")
    else:
        picture.media.append(Place(file=picture_file(folder, _OBJECT_IN_NAME.sub(r"\1\2", name))))
    pictures[id] = picture
    return picture


def _grounding(sentence: Row, ref: Row, boxes: Mapping[int, Row], *, where: str, taken: set[str]) -> Grounding:
    """One expression with the box of its object. Raises `MediaProblem` where it cannot be used."""
    if not is_id(sentence.get("sent_id")):
        raise MediaProblem("missing_field", f"{where} has no sent_id")
    id = str(sentence["sent_id"])
    if id in taken:
        raise MediaProblem("duplicate_id", f"{where} repeats the id of an earlier expression")
    taken.add(id)
    # `sent` is what REFER's own users train on: `raw` in lower case, without most punctuation.
    text = usable_text(sentence.get("sent", sentence.get("raw")), what="expression", where=where)
    object_id = ref.get("ann_id")
    found = boxes.get(object_id) if isinstance(object_id, int) else None
    if found is None:
        raise MediaProblem("missing_field", f"{where}: the instances have no object {object_id!r}")
    if found.get("image_id") != ref.get("image_id"):
        raise MediaProblem("box_outside", f"{where}: object {object_id} is one of picture {found.get('image_id')!r}")
    box = found.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise MediaProblem("missing_field", f"{where}: object {object_id} has no `bbox` of four numbers")
    return Grounding(id=id, text=text, box=from_corner_and_size(*box, where=where))
