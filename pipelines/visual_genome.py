"""Visual Genome's release: where its pictures lie, how large they are, and lists of pictures with something in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipelines.coco_objects import drawn_size
from pipelines.drafts import Draft, Place
from pipelines.json_stream import TOP, stream_json
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import id_text, is_broken, read_json
from shards.errors import InputError

_FOLDERS = ("VG_100K", "VG_100K_2")  # as the two picture archives unpack


@dataclass(frozen=True, slots=True)
class VisualGenome:
    """The pictures of the release, found by their ids."""

    folder: MediaFolder
    images: Mapping[str | None, Mapping[str, Any]] | None = None  # rows of image_data.json; None: sizes are not known

    @classmethod
    def open(cls, folder: MediaFolder, image_data: str | None) -> VisualGenome:
        """Read `image_data.json` where it is given. Raises `InputError` where it is another file."""
        if image_data is None:
            return cls(folder)
        rows = read_json(image_data, key="source.image_data")
        images = {_image_id(row): row for row in rows if _is_image(row)} if isinstance(rows, list) else {}
        if not images:
            raise InputError(
                f"source.image_data: {image_data} is no list of pictures with image_id, width and height; "
                "give Visual Genome's image_data.json"
            )
        return cls(folder, images)

    def draft(self, row: Mapping[str, Any], *, where: str) -> Draft:
        """The picture of a row of an annotation file, with its place and the size that its boxes were drawn on."""
        id = _image_id(row)
        if id is None:
            return Draft(id=where, stem=where, problem=("missing_field", f"{where} has no image id"))
        draft = Draft(id=id, stem=id)
        if self.images is None:
            draft.media.append(Place(file=self.file(id)))
            return draft
        image = self.images.get(id)
        if image is None:
            draft.problem = ("missing_field", f"{where}: image_data has no picture {id}, so its size is not known")
            return draft
        draft.media.append(Place(file=self.file(id, str(image.get("url")))))
        draft.size = drawn_size(image)
        return draft

    def file(self, id: str, url: str = "") -> str:
        """`<id>.jpg` in the folder itself or in the folder of its archive, which the picture's address names as well."""
        stated = "/".join(PurePosixPath(url).parts[-2:])
        told = [stated] if stated.startswith(_FOLDERS) and not is_broken(stated) else []
        names = [*told, f"{id}.jpg", *(f"{below}/{id}.jpg" for below in _FOLDERS)]
        return self.folder.first_there(names)


def read_pictures(path: str, *, holding: str, what: str) -> Iterator[Mapping[str, Any]]:
    """Stream the rows of an annotation file, each a picture with a list named `holding`; the largest has 700 MB.

    Raises:
        InputError: it is another file, or is cut.
    """
    wrong = InputError(
        f"source.annotations: {path} is no list of pictures with `{holding}`; give Visual Genome's {what}"
    )
    is_empty = True
    for name, row in stream_json(path, key="source.annotations"):
        if name != TOP or not isinstance(row, dict) or not isinstance(row.get(holding), list):
            raise wrong
        is_empty = False
        yield row
    if is_empty:
        raise wrong


def _is_image(row: Any) -> bool:
    return isinstance(row, dict) and _image_id(row) is not None and drawn_size(row) is not None


def _image_id(row: Mapping[str, Any]) -> str | None:
    """A picture's number as text; the first release calls it `id`."""
    id = id_text(row.get("image_id", row.get("id")))
    return id if id is not None and id.isascii() and id.isdecimal() else None
