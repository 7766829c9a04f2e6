"""TextVQA and TextCaps are annotated on the same OpenImages pictures and come in the same JSON: what both sources share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.drafts import Draft, Place
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import is_broken, read_json
from shards.errors import InputError

SPLIT_IN_NAME = re.compile(r"_(train|val|test)(?:_std)?\.json$")  # `TextCaps_0.1_train.json`
_FOLDERS = {"train": "train_images", "val": "train_images", "test": "test_images"}  # as the picture archives unpack


def open_images_rows(path: str, *, must_have: str, what: str) -> Sequence[Mapping[str, Any]]:
    """The rows of `data`. Raises `InputError` where there are none or not one has the field `must_have`."""
    content = read_json(path, key="source.annotations")
    rows = content.get("data") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"source.annotations: {path} has no list `data` of objects; give the official {what}")
    if not any(must_have in row for row in rows):
        raise InputError(
            f"source.annotations: no row of {path} has `{must_have}` (they hold: {', '.join(sorted(rows[0]))[:200]}); "
            f"give the official {what}"
        )
    return rows


def open_images_draft(pictures: dict[str, Draft], row: Mapping[str, Any], *, where: str, folder: MediaFolder) -> Draft:
    """The picture of a row: the one that an earlier row brought, or a new one."""
    id = row.get("image_id")
    if not isinstance(id, str) or not id or is_broken(id):
        draft = pictures[where] = Draft(id=where, stem=where, problem=("missing_field", f"{where} has no image_id"))
        return draft
    if id not in pictures:
        pictures[id] = Draft(id=id, stem=id, media=[Place(file=_file(row, id, folder))])
    return pictures[id]


def _file(row: Mapping[str, Any], id: str, folder: MediaFolder) -> str:
    """The picture's name: in the folder itself, or in one of the folders that the archives unpack to, wherever it is found."""
    stated = row.get("image_path")
    below = _FOLDERS.get(str(row.get("set_name")), "train_images")
    names = [f"{id}.jpg", f"{below}/{id}.jpg", *([stated] if isinstance(stated, str) and not is_broken(stated) else [])]
    return folder.first_there(names)
