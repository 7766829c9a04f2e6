"""COCO's `instances_*.json`: pictures, categories and boxes. Detection reads it, and so do the expressions of REFER."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from pipelines.json_stream import stream_json
from pipelines.raw_text import id_text, printable
from shards.errors import InputError

_CREATIVE_COMMONS = re.compile(r"creativecommons\.org/licenses/([a-z-]+)/([0-9.]+)")
_KEPT: Mapping[str, tuple[str, ...]] = {  # list → the fields of its rows that somebody reads
    "images": ("id", "file_name", "width", "height", "license"),
    "annotations": ("id", "image_id", "category_id", "bbox", "iscrowd"),
    "categories": ("id", "name"),
    "licenses": ("id", "name", "url"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoObjects:
    """The lists of one file. Rows are as the file has them; only what every reader needs is resolved."""

    images: Sequence[Mapping[str, Any]]
    annotations: Sequence[Mapping[str, Any]]
    categories: Mapping[str, str]  # by id
    licences: Mapping[str, str]  # by id: short names, `CC BY 2.0` where the licence's address says so

    def licence(self, image: Mapping[str, Any]) -> str | None:
        id = id_text(image.get("license"))
        return None if id is None else self.licences.get(id)


def read_coco_objects(path: str, *, key: str) -> CocoObjects:
    """Read the file without its outlines, which are nearly all of it.

    Args:
        path: the file as the user named it.
        key: the config key that named it, for messages.

    Raises:
        InputError: it is no `instances_*.json`, such as the captions of the same pictures, or is cut.
    """
    lists: dict[str, list[Mapping[str, Any]]] = {name: [] for name in _KEPT}
    others: set[str] = set()
    for name, value in stream_json(path, key=key, lists=_KEPT):
        if name in lists and isinstance(value, dict):
            lists[name].append({field: value[field] for field in _KEPT[name] if field in value})
        elif value != []:
            others.add(name or type(value).__name__)
    for name in ("images", "annotations", "categories"):
        if not any(lists[name]):
            holds = ", ".join(sorted(others.union(name for name, rows in lists.items() if any(rows))))
            raise InputError(
                f"{key}: {path} has no list `{name}` of objects (it holds: {holds[:200]}); give COCO's instances_*.json"
            )
    if not any("bbox" in annotation for annotation in lists["annotations"]):
        raise InputError(f"{key}: no annotation of {path} has a `bbox`; give instances_*.json")
    return CocoObjects(
        images=lists["images"],
        annotations=lists["annotations"],
        categories={
            id: printable(row["name"])
            for row in lists["categories"]
            if (id := id_text(row.get("id"))) is not None and isinstance(row.get("name"), str)
        },
        licences=licence_names(lists["licenses"]),
    )


def drawn_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height of the picture that boxes were drawn on, where the row says both."""
    width, height = image.get("width"), image.get("height")
    return (width, height) if is_id(width) and is_id(height) and width and height else None


def is_id(raw: Any) -> TypeGuard[int]:
    """Whether a value is a number such as COCO's ids are: not negative, and no boolean."""
    return isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0


def licence_names(rows: Any) -> dict[str, str]:
    """COCO's list of licences by id: `CC BY 2.0` where a licence's address says so, else the name as it stands."""
    names: dict[str, str] = {}
    for row in rows if isinstance(rows, list) else ():
        id = id_text(row.get("id")) if isinstance(row, dict) else None
        if id is not None:
            found = _CREATIVE_COMMONS.search(str(row.get("url")))
            short = f"CC {found.group(1).upper()} {found.group(2)}" if found else str(row.get("name"))
            names[id] = printable(short)
    return names
