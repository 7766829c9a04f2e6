"""From a record to a picture paired with one of its texts: what the tasks share."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import xxhash

from model.examples import Paired
from shards.errors import DatasetError
from shards.records import Caption, Entailment, Grounding, Question, Record, Statement
from shards.stream import Item
from trainers.task import ImageView

NEGATIVES = "negatives"  # the sidecar column that holds wrong captions of an image
WRONG_CAPTIONS = "captions"  # its field of them
CONCEPTS = "concepts"  # the sidecar column that holds an image's phrases, best first
PHRASES = "phrases"  # its field of them
SECOND_PHRASES = "second_phrases"  # in it, those of the second picture

AnnotationT = TypeVar("AnnotationT", Caption, Entailment, Grounding, Question, Statement)


def pair(
    item: Item, view: ImageView, rng: np.random.Generator, *, identity: int = -1, wrong_share: float = 0.0
) -> Paired:
    """Pair the picture of a record with the caption that the item's address names.

    Args:
        item: a record of captions, the number of one of them, and its sidecar rows.
        view: crops and resizes the picture; draws from `rng`.
        rng: keyed by (seed, epoch, record key and caption).
        identity: the same number for all captions of one picture, or -1 where every pair is its own.
        wrong_share: of the pairs with wrong captions at hand, those that bring one along.

    Raises:
        DatasetError: the record holds no captions.
    """
    return Paired(
        key=item.name,
        images=(view(item.record, rng),),
        concepts=concepts_of(item),
        text=caption_of(item.record, item.annotation).text,
        identity=identity,
        wrong_text=wrong_text_of(item, rng, share=wrong_share),
    )


def wrong_text_of(item: Item, rng: np.random.Generator, *, share: float) -> str:
    """Draw one of the record's wrong captions, of those made from its own caption where they were; empty for none.

    Args:
        item: a record with a row of the column `negatives` or `swaps`.
        rng: keyed by (seed, epoch, record key and caption); not touched where the stream reads no such column.
        share: how often one is drawn where there is one.
    """
    row = item.sidecars.get(NEGATIVES)
    if row is None:
        return ""
    made_of = row.get("annotations") or [item.annotation or 0] * len(row[WRONG_CAPTIONS])
    texts = [
        text for text, number in zip(row[WRONG_CAPTIONS], made_of, strict=True) if number == (item.annotation or 0)
    ]
    wanted, place = rng.random(2)
    return texts[int(place * len(texts))] if texts and wanted < share else ""


def caption_of(record: Record, annotation: int | None) -> Caption:
    """Take the caption with this number; where records are counted (None), the first."""
    return annotation_of(record, annotation, Caption)


def annotation_of(record: Record, annotation: int | None, kind: type[AnnotationT]) -> AnnotationT:
    """Take the annotation with this number; where records are counted (None), the first.

    Raises:
        DatasetError: it is of another kind, or the record has none.
    """
    found = record.annotations[annotation or 0] if record.annotations else None
    if not isinstance(found, kind):
        has = "no annotations" if found is None else f"annotations of type {found.type!r}"
        raise DatasetError(
            f"record {record.key!r} has {has}, this task needs {kind.type}s: name a dataset made from {kind.type}s"
        )
    return found


def concepts_of(item: Item) -> tuple[str, ...]:
    """The picture's concepts, best first; empty where the stream reads no concepts sidecar."""
    row = item.sidecars.get(CONCEPTS)
    return tuple(row[PHRASES]) if row is not None else ()


def second_concepts_of(item: Item) -> tuple[str, ...]:
    """The second picture's concepts, of records that have two."""
    row = item.sidecars.get(CONCEPTS)
    return tuple(row.get(SECOND_PHRASES) or ()) if row is not None else ()


def identity_of(record: Record) -> int:
    """Number a picture by its key: the same on every rank and in every run, never negative."""
    return xxhash.xxh3_64_intdigest(record.key.encode()) >> 1
