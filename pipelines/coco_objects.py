"""COCO's `instances_*.json`: pictures, categories and boxes. Detection reads it, and so do the expressions of REFER."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeGuard

from pipelines.coco_pictures import coco_file
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import printable, read_json
from shards.errors import InputError

_COCO_NAME = re.compile(r"(?:COCO_([a-z]+\d{4})_)?(\d{12})\.jpg")
_CREATIVE_COMMONS = re.compile(r"creativecommons\.org/licenses/([a-z-]+)/([0-9.]+)")
_NEWEST = "train2017"


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoObjects:
    """The lists of one file. Rows are as the file has them; only what every reader needs is resolved."""

    images: Sequence[Mapping[str, Any]]
    annotations: Sequence[Mapping[str, Any]]
    categories: Mapping[int, str]
    licences: Mapping[int, str]  # short names, `CC BY 2.0` where the licence's address says so

    def licence(self, image: Mapping[str, Any]) -> str | None:
        raw = image.get("license")
        return self.licences.get(raw) if isinstance(raw, int) else None


def read_coco_objects(path: str, *, key: str) -> CocoObjects:
    """Read the file whole.

    Args:
        path: the file as the user named it.
        key: the config key that named it, for messages.

    Raises:
        InputError: it is no `instances_*.json`, such as the captions of the same pictures, or is cut.
    """
    content = read_json(path, key=key)
    annotations = _rows(content, "annotations", path=path, key=key)
    if not any("bbox" in annotation for annotation in annotations):
        holds = ", ".join(sorted(annotations[0]))
        raise InputError(f"{key}: no annotation of {path} has a `bbox` (they hold: {holds}); give instances_*.json")
    return CocoObjects(
        images=_rows(content, "images", path=path, key=key),
        annotations=annotations,
        categories={
            row["id"]: printable(row["name"])
            for row in _rows(content, "categories", path=path, key=key)
            if isinstance(row.get("id"), int) and isinstance(row.get("name"), str)
        },
        licences=_licences(content.get("licenses")),
    )


def drawn_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height of the picture that boxes were drawn on, where the row says both."""
    width, height = image.get("width"), image.get("height")
    return (width, height) if is_id(width) and is_id(height) and width and height else None


def picture_file(folder: MediaFolder, name: str) -> str:
    """Where the picture of a `file_name` lies: as it is called, or under the name that another release of COCO gives it."""
    found = _COCO_NAME.fullmatch(PurePath(name).name)
    if not found or not folder.is_local or folder.size(name) is not None:
        return name
    other = coco_file(folder, int(found.group(2)), subset=found.group(1) or _NEWEST)
    return other if folder.size(other) is not None else name


def is_id(raw: Any) -> TypeGuard[int]:
    """Whether a value is a number such as COCO's ids are: not negative, and no boolean."""
    return isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0


def _rows(content: Any, name: str, *, path: str, key: str) -> Sequence[Mapping[str, Any]]:
    rows = content.get(name) if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        holds = ", ".join(sorted(content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"{key}: {path} has no list `{name}` of objects (it holds: {holds[:200]}); give COCO's instances_*.json"
        )
    return rows


def _licences(rows: Any) -> dict[int, str]:
    names: dict[int, str] = {}
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and is_id(row.get("id")):
            found = _CREATIVE_COMMONS.search(str(row.get("url")))
            short = f"CC {found.group(1).upper()} {found.group(2)}" if found else str(row.get("name"))
            names[row["id"]] = printable(short)
    return names
