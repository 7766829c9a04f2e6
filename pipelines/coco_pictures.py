"""COCO's pictures under the names they have had: 2014, 2015 and 2017 releases hold the same photos in other folders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath

from pipelines.media_folder import MediaFolder

_DIGITS = 12  # COCO pads the image id in its file names
_RELEASED_EARLIER, _RELEASED_IN_2017 = ("train2014", "val2014", "test2015"), ("train2017", "val2017", "test2017")
_COCO_NAME = re.compile(r"(?:COCO_([a-z]+\d{4})_)?(\d{12})\.jpg")


def coco_file(folder: MediaFolder, image_id: int, *, subset: str) -> str:
    """The file of a COCO picture, relative to `folder`.

    Of the names that the releases give the picture, the one that is there is taken: `COCO_train2014_000000000025.jpg` or
    `000000000025.jpg`, in the folder itself or in that of a subset. Where none is there, or the folder is remote, it is
    the name that the annotations mean.

    Args:
        folder: the subset's folder, or the one that holds all subsets.
        image_id: as the annotations have it.
        subset: as the annotations have it, such as `train2014`, `test2015`.
    """
    return folder.first_there(_names(image_id, subset))


def picture_file(folder: MediaFolder, name: str) -> str:
    """Where the picture of a `file_name` lies: as it is called, or under the name that another release of COCO gives it."""
    found = _COCO_NAME.fullmatch(PurePath(name).name)
    if not found or not folder.is_local or folder.size(name) is not None:
        return name
    other = coco_file(folder, int(found.group(2)), subset=found.group(1) or _RELEASED_IN_2017[0])
    return other if folder.size(other) is not None else name


def coco_stem(image_id: int | str) -> str:
    """The stem of a COCO picture's key: the same for every dataset that is annotated on it."""
    id = str(image_id)
    return id.zfill(_DIGITS) if id.isdecimal() else id


def _names(image_id: int, subset: str) -> Iterator[str]:
    older, newer = f"COCO_{subset}_{image_id:0{_DIGITS}d}.jpg", f"{image_id:0{_DIGITS}d}.jpg"
    yield older
    yield f"{subset}/{older}"
    yield newer
    yield f"{subset}/{newer}"
    # The 2017 release dealt the photos of 2014 out anew, so a training photo may lie under val2017 and the other way round.
    for released in _RELEASED_IN_2017:
        yield f"{released}/{newer}"
    for released in _RELEASED_EARLIER:
        name = f"COCO_{released}_{image_id:0{_DIGITS}d}.jpg"
        yield name
        yield f"{released}/{name}"
