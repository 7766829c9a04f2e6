"""The column `pools`: a dataset's captions, object names and answers, to draw negatives from, and each record's own objects.

The three pools are counted shard by shard and merged exactly: the result depends on neither the number of workers nor their
order. Where a pool would grow beyond its bound, what stays is chosen by the hash of the text, which is as good as at random.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from concepts.nouns import ShardUnit
from shards.config import digest
from shards.errors import DatasetError
from shards.pools import OTHER, Pools, decode_pools, encode_pools
from shards.reader import Dataset, open_dataset
from shards.records import Annotation, Caption, Detection, Grounding, Label, Question
from shards.sidecar import sidecar_folder, write_sidecar

POOLS = "pools"
SCHEMA = 1
LONGEST_NAME = 3  # words of an object's name that is looked for in captions

_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What some records hold; each text once, in the order of first sight."""

    captions: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    answers: Mapping[str, tuple[str, ...]]


def collect(annotations: Iterable[Annotation], *, max_captions: int) -> Collected:
    """Collect from annotations: captions and expressions, labels of objects and classes, answers by question type."""
    captions: dict[str, None] = {}
    objects: dict[str, None] = {}
    answers: dict[str, dict[str, None]] = {}
    for annotation in annotations:
        match annotation:
            case Caption(text=text) | Grounding(text=text):
                captions[" ".join(text.split())] = None
            case Detection(label=name) | Label(name=name):
                objects[" ".join(name.split())] = None
            case Question(answers=given, question_type=kind):
                answers.setdefault(kind or OTHER, {}).update(dict.fromkeys(answer.text for answer in given))
    return Collected(
        captions=_bounded(captions, max_captions),
        objects=tuple(name for name in objects if name),
        answers={kind: tuple(text for text in texts if text) for kind, texts in answers.items()},
    )


def merge_pools(parts: Sequence[Collected], *, max_captions: int) -> Pools:
    """Merge what was collected, in the order of the parts.

    Where every answer has a type, `other`, on which every draw falls back, gets all of them.
    """
    answers: dict[str, dict[str, None]] = {}
    for part in parts:
        for kind, texts in part.answers.items():
            answers.setdefault(kind, {}).update(dict.fromkeys(texts))
    if answers and not answers.get(OTHER):
        answers[OTHER] = {text: None for texts in answers.values() for text in texts}
    return Pools(
        captions=_bounded(dict.fromkeys(text for part in parts for text in part.captions), max_captions),
        objects=tuple(dict.fromkeys(name for part in parts for name in part.objects)),
        answers={kind: tuple(texts) for kind, texts in answers.items()},
    )


def _bounded(texts: Mapping[str, None], count: int) -> tuple[str, ...]:
    """All texts in order, or those `count` of the smallest hash, which a merge of parts finds again."""
    whole = [text for text in texts if text]
    if len(whole) <= count:
        return tuple(whole)
    kept = set(heapq.nsmallest(count, whole, key=lambda text: (xxhash.xxh3_64_intdigest(text.encode()), text)))
    return tuple(text for text in whole if text in kept)


class PoolCollector:
    """Collects from one shard."""

    def __init__(self, *, max_captions: int) -> None:
        self._max_captions = max_captions

    def begin(self) -> Callable[[ShardUnit], Collected]:
        """The factory that an executor calls once per worker."""
        return self

    def __call__(self, unit: ShardUnit) -> Collected:
        records = open_dataset(unit.dataset).records(unit.shard, payload=False)
        annotations = (annotation for record in records for annotation in record.annotations)
        return collect(annotations, max_captions=self._max_captions)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """What decides the bytes of the column `pools`."""

    dataset: str  # digest
    pools: str  # digest

    @property
    def digest8(self) -> str:
        """Names the column."""
        return digest({"column": POOLS, **self.card})[:8]

    @property
    def card(self) -> dict[str, Any]:
        """What `column.json` says."""
        return {"schema": SCHEMA, "dataset": self.dataset, "pools": self.pools}

    @property
    def folder(self) -> str:
        """Where the column and the three files lie in the dataset."""
        return sidecar_folder(POOLS, self.digest8)


def write_pools(dataset: Dataset, pools: Pools, plan: PoolPlan) -> None:
    """Write the three files into the folder of the column; they are named by their digest, so whoever is first wins."""
    for name, data in encode_pools(pools).items():
        dataset.storage.create(f"{plan.folder}/{name}", data)


class ObjectFinder:
    """Writes, for each record of a shard, which objects of the pool its own annotations name."""

    def __init__(self, plan: PoolPlan) -> None:
        self._plan = plan
        self._names: frozenset[str] | None = None

    def begin(self) -> Callable[[ShardUnit], int]:
        """The factory that an executor calls once per worker."""
        return self

    def __call__(self, unit: ShardUnit) -> int:
        """Returns how many records the shard holds."""
        import pyarrow as pa

        dataset = open_dataset(unit.dataset)
        if dataset.digest != self._plan.dataset:
            raise DatasetError(
                f"{dataset.path} is another dataset than the run was started with; run `negatives` again"
            )
        if self._names is None:
            folder = self._plan.folder
            pools = decode_pools(
                lambda name: dataset.storage.read(f"{folder}/{name}"), where=dataset.storage.path(folder)
            )
            self._names = frozenset(pools.objects)
        keys, objects = [], []
        for record in dataset.records(unit.shard, payload=False):
            keys.append(record.key)
            objects.append(objects_of(record.annotations, self._names))
        write_sidecar(
            dataset.storage,
            column=POOLS,
            digest8=self._plan.digest8,
            shard=dataset.manifest[unit.shard].name,
            keys=keys,
            values=pa.table({"objects": pa.array(objects, pa.list_(pa.string()))}),
            card=self._plan.card,
        )
        return len(keys)


def objects_of(annotations: Iterable[Annotation], names: frozenset[str]) -> list[str]:
    """List the known objects that annotations name: labels as they are; in captions the longest lower-case names, in order."""
    found: dict[str, None] = {}
    for annotation in annotations:
        match annotation:
            case Detection(label=name) | Label(name=name):
                found.update(dict.fromkeys({name} & names))
            case Caption(text=text) | Grounding(text=text):
                found.update(dict.fromkeys(_named(text, names)))
    return list(found)


def _named(text: str, names: frozenset[str]) -> Iterable[str]:
    words = _WORD.findall(text)
    place = 0
    while place < len(words):
        for length in range(min(LONGEST_NAME, len(words) - place), 0, -1):
            name = " ".join(words[place : place + length]).lower()
            if name in names:
                yield name
                break
        else:
            length = 1
        place += length
