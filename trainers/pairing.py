"""From a record with captions to a picture paired with one of its texts: what pretraining and retrieval share."""

from __future__ import annotations

import numpy as np
import xxhash

from model.examples import Paired
from shards.errors import DatasetError
from shards.records import Caption, Record
from shards.stream import Item
from trainers.task import ImageView

CONCEPTS = "concepts"  # the sidecar column that holds an image's phrases, best first


def pair(item: Item, view: ImageView, rng: np.random.Generator, *, identity: int = -1) -> Paired:
    """Pair the picture of a record with the caption that the item's address names.

    Args:
        item: a record of captions, the number of one of them, and its sidecar rows.
        view: crops and resizes the picture; draws from `rng`.
        rng: keyed by (seed, epoch, record key and caption).
        identity: the same number for all captions of one picture, or -1 where every pair is its own.

    Raises:
        DatasetError: the record holds no captions.
    """
    return Paired(
        key=item.name,
        images=(view(item.record, rng),),
        concepts=concepts_of(item),
        text=caption_of(item.record, item.annotation).text,
        identity=identity,
    )


def caption_of(record: Record, annotation: int | None) -> Caption:
    """Take the caption with this number; where records are counted (None), the first."""
    found = record.annotations[annotation or 0] if record.annotations else None
    if not isinstance(found, Caption):
        kind = "no annotations" if found is None else f"annotations of type {found.type!r}"
        raise DatasetError(
            f"record {record.key!r} has {kind}, this task needs captions: train on a dataset made from captions"
        )
    return found


def concepts_of(item: Item) -> tuple[str, ...]:
    """The picture's concepts, best first; empty where the stream reads no concepts sidecar."""
    row = item.sidecars.get(CONCEPTS)
    return tuple(row["phrases"]) if row is not None else ()


def identity_of(record: Record) -> int:
    """Number a picture by its key: the same on every rank and in every run, never negative."""
    return xxhash.xxh3_64_intdigest(record.key.encode()) >> 1
