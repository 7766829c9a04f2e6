"""The evaluation set of a retrieval run: every picture once, every text once, nothing dropped, nothing repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from model.examples import Paired
from shards.errors import DatasetError
from shards.reader import Dataset
from shards.records import Caption, Record
from shards.sidecar import Sidecar
from trainers.task import ImageView


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryText:
    """One caption: which picture it belongs to, and which of its captions it is."""

    text: str
    image: int  # position in the gallery
    annotation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """What is compared with what. Headers only; pixels are read while embedding."""

    dataset: Dataset
    concepts: Sidecar | None
    places: tuple[tuple[int, int], ...]  # shard and row of each picture
    keys: tuple[str, ...]  # record key of each picture
    texts: tuple[GalleryText, ...]

    def relevant(self) -> Tensor:
        """Mark which texts belong to which picture: (images, texts) bool."""
        owner = torch.tensor([text.image for text in self.texts])
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
            pixels = view(self.dataset.record(shard, row), draws)
            examples.append(Paired(key=key, images=(pixels,), concepts=phrases, text=""))
        return examples

    def _expect(self, images: Sequence[int]) -> None:
        """Have a store read the pictures of a batch together."""
        rows: dict[int, list[int]] = {}
        for image in images:
            shard, row = self.places[image]
            rows.setdefault(shard, []).append(row)
        for shard, own in rows.items():
            self.dataset.expect(shard, partial(iter, own))

    def text_examples(self, texts: Sequence[int]) -> list[Paired]:
        """Take some texts as examples without a picture."""
        chosen = [self.texts[text] for text in texts]
        return [Paired(key=f"{self.keys[text.image]}#{text.annotation}", text=text.text) for text in chosen]


def read_gallery(dataset: Dataset, concepts: Sidecar | None, *, limit: int | None = None) -> Gallery:
    """List the pictures and captions of a dataset, in its order.

    Raises:
        DatasetError: a record has no caption, or there is no record at all.
    """
    places: list[tuple[int, int]] = []
    keys: list[str] = []
    texts: list[GalleryText] = []
    for shard, row, record in islice(_headers(dataset), limit):
        captions = [(number, item) for number, item in enumerate(record.annotations) if isinstance(item, Caption)]
        if not captions or not record.media:
            raise DatasetError(
                f"{dataset.path}: record {record.key!r} has no {'picture' if captions else 'caption'}; "
                "retrieval needs pictures with captions"
            )
        texts += [GalleryText(text=item.text, image=len(keys), annotation=number) for number, item in captions]
        places.append((shard, row))
        keys.append(record.key)
    if not keys:
        raise DatasetError(f"{dataset.path}: the dataset is empty, there is nothing to evaluate on")
    return Gallery(dataset=dataset, concepts=concepts, places=tuple(places), keys=tuple(keys), texts=tuple(texts))


def _headers(dataset: Dataset) -> Iterator[tuple[int, int, Record]]:
    for shard in range(len(dataset.manifest)):
        for row, record in enumerate(dataset.records(shard, payload=False)):
            yield shard, row, record
