"""COCO's pictures under the names they have had: 2014, 2015 and 2017 releases hold the same photos in other folders."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.media_folder import MediaFolder

_DIGITS = 12  # COCO pads the image id in its file names
_RELEASED_IN_2017 = ("train2017", "val2017", "test2017")


def coco_file(folder: MediaFolder, image_id: int, *, subset: str) -> str:
    """The file of a COCO picture, relative to `folder`.

    Of the names that the releases give the picture, the one that is there is taken: `COCO_train2014_000000000025.jpg` or
    `000000000025.jpg`, in the folder itself or in that of its subset. Where none is there, or the folder is remote, it is
    the name that the annotations mean.

    Args:
        folder: the subset's folder, or the one that holds all subsets.
        image_id: as the annotations have it.
        subset: as the annotations have it, such as `train2014`, `test2015`.
    """
    official = f"COCO_{subset}_{image_id:0{_DIGITS}d}.jpg"
    if not folder.is_local:
        return official
    return next((name for name in _names(image_id, subset) if folder.size(name) is not None), official)


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
