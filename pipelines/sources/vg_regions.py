"""Visual Genome's regions: `region_descriptions.json`, some fifty phrases per picture, each about a box.

    source.kind=vg_regions source.annotations=region_descriptions.json source.image_data=image_data.json source.media=…

ViCHA pretrains on the phrases as captions of the whole picture: `source.phrases_as=captions`; the picture is then stored once with
all of them, and not once for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pipelines.boxes import BoxedConfig, from_corner_and_size
from pipelines.coco_objects import is_id
from pipelines.drafts import Draft, drafted_from_files, usable_text
from pipelines.media_folder import MediaFolder
from pipelines.source import Source, Target
from pipelines.visual_genome import VisualGenome, read_pictures
from shards.media import MediaProblem
from shards.records import Caption, Grounding


class Config(BoxedConfig):
    """`split` only names the split; Visual Genome has none of its own. Many of its boxes stick out: see `clip_boxes`."""

    LOCATIONS: ClassVar = ("annotations", "image_data", "media")

    media: str
    """The folder of the pictures, or the one that holds `VG_100K` and `VG_100K_2`."""
    image_data: str | None = None
    """`image_data.json`, so that boxes are checked against the size that they were drawn on; unset: they are not."""
    phrases_as: Literal["grounding", "captions"] = "grounding"
    """Keep each phrase with its box, or as a caption of the picture, for which boxes are neither needed nor looked at."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(
        folder, lambda: _pictures(config, folder), config=config, target=target, boxes=config.box_rule()
    )


def _pictures(config: Config, folder: MediaFolder) -> Iterator[Draft]:
    release = VisualGenome.open(folder, config.image_data)
    seen: set[str] = set()
    regions: set[int] = set()
    annotate = _caption if config.phrases_as == "captions" else _grounding
    for number, row in enumerate(read_pictures(config.annotations, holding="regions", what="region_descriptions.json")):
        picture = release.draft(row, where=f"[{number}]")
        if picture.id in seen:
            picture.problem = ("duplicate_id", f"[{number}] repeats the picture {picture.id}")
        seen.add(picture.id)
        for place, entry in enumerate(row["regions"]):
            where = f"[{number}].regions[{place}]"
            region: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
            with picture.refusing(str(region["region_id"]) if is_id(region.get("region_id")) else where):
                id = _id(region, where=where, taken=regions)
                picture.annotations.append(annotate(region, id=id, where=where))
        yield picture


def _id(region: Mapping[str, Any], *, where: str, taken: set[int]) -> str:
    id = region.get("region_id")
    if not is_id(id):
        raise MediaProblem("missing_field", f"{where} has no region_id")
    if id in taken:
        raise MediaProblem("duplicate_id", f"{where} repeats the id of an earlier region")
    taken.add(id)
    return str(id)


def _caption(region: Mapping[str, Any], *, id: str, where: str) -> Caption | Grounding:
    return Caption(id=id, text=usable_text(region.get("phrase"), what="phrase", where=where))


def _grounding(region: Mapping[str, Any], *, id: str, where: str) -> Caption | Grounding:
    text = usable_text(region.get("phrase"), what="phrase", where=where)
    corner_and_size = (region.get("x"), region.get("y"), region.get("width"), region.get("height"))
    return Grounding(id=id, text=text, box=from_corner_and_size(*corner_and_size, where=where))
