"""TextCaps: `TextCaps_0.1_<split>.json`, captions that read the texts in OpenImages pictures, five for each."""

from __future__ import annotations

from typing import ClassVar

from pipelines.drafts import Draft, drafted_from_files
from pipelines.media_folder import MediaFolder
from pipelines.open_images import SPLIT_IN_NAME, open_images_draft, open_images_rows
from pipelines.source import Source, SourceConfig, Target


class Config(SourceConfig):
    """`split` only names the split; unset, it is read off the file's name."""

    SPLIT_IN_NAME: ClassVar = SPLIT_IN_NAME

    media: str
    """The folder of the pictures (`train_images`, `test_images`), or the one above it."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _pictures(config, folder), config=config, target=target)


def _pictures(config: Config, folder: MediaFolder) -> list[Draft]:
    """Pictures in the order of the file. A row is one caption; that it repeats all five as `reference_strs` is passed over."""
    rows = open_images_rows(
        config.annotations, must_have="caption_str", what="TextCaps_*.json (its test file holds no captions)"
    )
    pictures: dict[str, Draft] = {}
    taken: set[str] = set()
    for number, row in enumerate(rows):
        where = f"data[{number}]"
        picture = open_images_draft(pictures, row, where=where, folder=folder)
        id = str(row["caption_id"]) if "caption_id" in row else None
        if id is not None and id in taken:
            picture.refuse(id, "duplicate_id", f"{where} repeats the id of an earlier caption")
            continue
        if id is not None:
            taken.add(id)
        picture.add_caption(row.get("caption_str"), id=id, where=where)
    return list(pictures.values())
