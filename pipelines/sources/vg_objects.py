"""Visual Genome's objects: `objects.json`, and `image_data.json` for the sizes that their boxes were drawn on.

    source.kind=vg_objects source.annotations=objects.json source.image_data=image_data.json source.media=…

An object that has several names is a detection for each of them, on the same box; the further ones have ids such as `1058549-1`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pipelines.boxes import BoxedConfig, from_corner_and_size
from pipelines.coco_objects import is_id
from pipelines.drafts import Draft, drafted_from_files, usable_text
from pipelines.media_folder import MediaFolder
from pipelines.source import Source, Target
from pipelines.visual_genome import VisualGenome, read_pictures
from shards.records import Detection


class Config(BoxedConfig):
    """`split` only names the split; Visual Genome has none of its own. Many of its boxes stick out: see `clip_boxes`."""

    LOCATIONS: ClassVar = ("annotations", "image_data", "media")

    media: str
    """The folder of the pictures, or the one that holds `VG_100K` and `VG_100K_2`."""
    image_data: str | None = None
    """`image_data.json`, so that boxes are checked against the size that they were drawn on; unset: they are not."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(
        folder, lambda: _pictures(config, folder), config=config, target=target, boxes=config.box_rule()
    )


def _pictures(config: Config, folder: MediaFolder) -> Iterator[Draft]:
    release = VisualGenome.open(folder, config.image_data)
    seen: set[str] = set()
    objects: set[int] = set()
    for number, row in enumerate(read_pictures(config.annotations, holding="objects", what="objects.json")):
        picture = release.draft(row, where=f"[{number}]")
        if picture.id in seen:
            picture.problem = ("duplicate_id", f"[{number}] repeats the picture {picture.id}")
        seen.add(picture.id)
        for place, entry in enumerate(row["objects"]):
            _detect(picture, entry, where=f"[{number}].objects[{place}]", taken=objects)
        yield picture


def _detect(picture: Draft, entry: Any, *, where: str, taken: set[int]) -> None:
    """Add an object once for each of its names; what cannot be used is refused by the object's id."""
    fields: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
    raw = fields.get("object_id", fields.get("id"))
    id = str(raw) if is_id(raw) else where
    if is_id(raw):
        if raw in taken:
            picture.refuse(id, "duplicate_id", f"{where} repeats the id of an earlier object")
            return
        taken.add(raw)
    names = fields.get("names")
    if not isinstance(names, list) or not names:
        picture.refuse(id, "missing_field", f"{where} has no list of names")
        return
    for number, name in enumerate(names):
        own = f"{id}-{number}" if number else id
        with picture.refusing(own):
            label = usable_text(name, what="name", where=where)
            corner_and_size = (fields.get("x"), fields.get("y"), fields.get("w"), fields.get("h"))
            box = from_corner_and_size(*corner_and_size, where=where)
            picture.annotations.append(Detection(id=own, box=box, label=label))
