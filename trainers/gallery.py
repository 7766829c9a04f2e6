"""What a retrieval compares: every picture once, every text once, nothing dropped, nothing repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.examples import Paired
from shards.errors import DatasetError
from shards.records import Caption, Record
from trainers.shelf import Notes, Shelf
from trainers.task import ImageView


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryText:
    """One text: where it stands, and which picture of the gallery it belongs to, where it does."""

    text: str
    annotation: int  # which caption of its record, or which of the given texts
    key: str | None  # of its record; `None` where it was given
    image: int | None  # position in the gallery

    def address(self) -> dict[str, Any]:
        """Say where it stands and what it says."""
        return {"key": self.key, "annotation": self.annotation, "text": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """What is compared with what. Headers only; pixels are read while embedding."""

    shelf: Shelf
    concepts: Notes | None
    places: tuple[tuple[int, int], ...]  # shard and row of each picture
    keys: tuple[str, ...]  # record key of each picture
    texts: tuple[GalleryText, ...]

    def with_texts(self, texts: Sequence[GalleryText]) -> Gallery:
        """The same pictures, beside other texts."""
        return replace(self, texts=tuple(texts))

    def apart(self) -> tuple[GalleryText, ...]:
        """The texts, as belonging to no picture of the gallery that they are put into."""
        return tuple(replace(text, image=None) for text in self.texts)

    def relevant(self) -> Tensor:
        """Mark which texts belong to which picture: (images, texts) bool."""
        owner = torch.tensor([-1 if text.image is None else text.image for text in self.texts])
        return owner[None, :] == torch.arange(len(self.keys))[:, None]

    def picture_examples(self, view: ImageView, images: Sequence[int]) -> list[Paired]:
        """Read some pictures as examples without a text.

        Raises:
            DamagedRecordError: a picture cannot be read; an evaluation has no reserve for it.
        """
        draws = np.random.default_rng(0)  # an evaluation view draws nothing; the signature asks for a generator
        self._expect(images)
        examples = []
        for image in images:
            shard, row = self.places[image]
            key = self.keys[image]
            phrases = tuple(self.concepts.row(shard, key)["phrases"]) if self.concepts is not None else ()
            pixels = view(self.shelf.record(shard, row), draws)
            examples.append(Paired(key=key, images=(pixels,), concepts=phrases, text=""))
        return examples

    def _expect(self, images: Sequence[int]) -> None:
        """Have a store read the pictures of a batch together."""
        rows: dict[int, list[int]] = {}
        for image in images:
            shard, row = self.places[image]
            rows.setdefault(shard, []).append(row)
        for shard, own in rows.items():
            self.shelf.expect(shard, partial(iter, own))

    def text_examples(self, texts: Sequence[int]) -> list[Paired]:
        """Take some texts as examples without a picture."""
        chosen = [self.texts[text] for text in texts]
        return [Paired(key=f"{text.key}#{text.annotation}", text=text.text) for text in chosen]


def read_gallery(shelf: Shelf, concepts: Notes | None, *, limit: int | None = None) -> Gallery:
    """List the pictures and captions of a dataset, in its order; every picture needs a caption.

    Raises:
        DatasetError: a record has no caption or no picture, or there is no record at all.
    """
    gallery = list_gallery(shelf, concepts, limit=limit)
    captioned = {text.image for text in gallery.texts}
    for image, key in enumerate(gallery.keys):
        if image not in captioned:
            raise DatasetError(f"{shelf.path}: record {key!r} has no caption; retrieval needs pictures with captions")
    return gallery


def list_gallery(shelf: Shelf, concepts: Notes | None, *, limit: int | None = None) -> Gallery:
    """List the pictures of a shelf, and what captions they have, in its order.

    Raises:
        DatasetError: a record has no picture, or there is no record at all.
    """
    places: list[tuple[int, int]] = []
    keys: list[str] = []
    texts: list[GalleryText] = []
    for shard, row, record in islice(_headers(shelf), limit):
        if not any(media.kind == "image" for media in record.media):
            raise DatasetError(f"{shelf.path}: record {record.key!r} has no picture; retrieval needs pictures")
        texts += [
            GalleryText(text=item.text, annotation=number, key=record.key, image=len(keys))
            for number, item in enumerate(record.annotations)
            if isinstance(item, Caption)
        ]
        places.append((shard, row))
        keys.append(record.key)
    if not keys:
        raise DatasetError(f"{shelf.path}: the dataset is empty, there is nothing to look at")
    return Gallery(shelf=shelf, concepts=concepts, places=tuple(places), keys=tuple(keys), texts=tuple(texts))


def _headers(shelf: Shelf) -> Iterator[tuple[int, int, Record]]:
    for shard in range(len(shelf.shard_sizes())):
        for row, record in enumerate(shelf.records(shard, payload=False)):
            yield shard, row, record
