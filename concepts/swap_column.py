"""The column `swaps`: wrong captions made of each record's own, one shard at a time, by what the whole dataset says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from concepts.nouns import ShardUnit
from concepts.phrases import PhraseConfig, PhraseExtractor
from concepts.swaps import Scene, Swap, Usage, Use, count_uses, make_swaps
from shards.config import canonical_json, digest
from shards.errors import ConfigError, DatasetError
from shards.reader import Dataset, open_dataset
from shards.records import Caption
from shards.sidecar import sidecar_folder, write_sidecar

if TYPE_CHECKING:
    import pyarrow as pa

SWAPS, USAGE_FILE = "swaps", "usage.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapPlan:
    """What decides the bytes of the column `swaps`; the usage follows from it."""

    dataset: str  # digest
    tagger: str
    max_words: int
    min_seen: int
    seed: int

    @property
    def card(self) -> dict[str, Any]:
        """What `column.json` says."""
        return {
            "schema": SCHEMA,
            "dataset": self.dataset,
            "tagger": self.tagger,
            "max_words": self.max_words,
            "min_seen": self.min_seen,
            "seed": self.seed,
        }

    @property
    def digest8(self) -> str:
        """Names the column."""
        return digest({"column": SWAPS, **self.card})[:8]

    @property
    def usage_path(self) -> str:
        """Where the usage of the dataset's words lies in it."""
        return f"{sidecar_folder(SWAPS, self.digest8)}/{USAGE_FILE}"


class _Reader:
    """Reads the captions of a shard as scenes; loads the tagger when first needed, and makes sure that it is the run's."""

    def __init__(self, config: PhraseConfig, plan: SwapPlan) -> None:
        self._config, self._plan = config, plan
        self._extractor: PhraseExtractor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_extractor": None}

    def scenes(self, dataset: Dataset, shard: int) -> dict[str, dict[int, Scene]]:
        """By key, the captions of a record by their number among its annotations."""
        if dataset.digest != self._plan.dataset:
            raise DatasetError(
                f"{dataset.path} is another dataset than the run was started with; run `negatives` again"
            )
        self._extractor = self._extractor or PhraseExtractor(self._config)
        if self._extractor.name != self._plan.tagger:
            raise ConfigError(
                f"phrases.tagger: this worker has {self._extractor.name}, the run was started with {self._plan.tagger}; "
                "give every worker the same pipeline"
            )
        captions = {
            record.key: {
                number: each.text for number, each in enumerate(record.annotations) if isinstance(each, Caption)
            }
            for record in dataset.records(shard, payload=False)
        }
        tagged = iter(self._extractor.tagged([text for texts in captions.values() for text in texts.values()]))
        return {
            key: {number: Scene(text, next(tagged)) for number, text in texts.items()}
            for key, texts in captions.items()
        }


class UsageCounter(_Reader):
    """Counts which words come together in the captions of one shard."""

    def begin(self) -> Callable[[ShardUnit], Counter[Use]]:
        """The factory that an executor calls once per worker."""
        return self

    def __call__(self, unit: ShardUnit) -> Counter[Use]:
        found = self.scenes(open_dataset(unit.dataset), unit.shard)
        return count_uses(scene for scenes in found.values() for scene in scenes.values())


class SwapMaker(_Reader):
    """Makes the wrong captions of one shard."""

    def __init__(self, config: PhraseConfig, plan: SwapPlan) -> None:
        super().__init__(config, plan)
        self._usage: Usage | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_usage": None}

    def begin(self) -> Callable[[ShardUnit], int]:
        """The factory that an executor calls once per worker."""
        return self

    def __call__(self, unit: ShardUnit) -> int:
        """Returns how many records the shard holds."""
        dataset = open_dataset(unit.dataset)
        self._usage = self._usage or read_usage(dataset, self._plan)
        made = {
            key: self._of_record(key, scenes, self._usage) for key, scenes in self.scenes(dataset, unit.shard).items()
        }
        write_sidecar(
            dataset.storage,
            column=SWAPS,
            digest8=self._plan.digest8,
            shard=dataset.manifest[unit.shard].name,
            keys=list(made),
            values=swap_table(list(made.values())),
            card=self._plan.card,
        )
        return len(made)

    def _of_record(self, key: str, scenes: Mapping[int, Scene], usage: Usage) -> list[tuple[int, Swap]]:
        shown = frozenset(word for scene in scenes.values() for word in scene.words)
        found: list[tuple[int, Swap]] = []
        for number, scene in scenes.items():
            address = xxhash.xxh3_64_intdigest(f"{self._plan.seed}:{key}#{number}".encode())
            swaps = make_swaps(scene, usage, shown=shown, rng=np.random.default_rng(address))
            found += [(number, swap) for swap in swaps]
        return found


def write_usage(dataset: Dataset, plan: SwapPlan, counts: Mapping[Use, int]) -> None:
    """Write what is seen often enough, in alphabetical order."""
    rows = sorted([*use, count] for use, count in counts.items() if count >= plan.min_seen)
    dataset.storage.create(plan.usage_path, canonical_json({"uses": rows}))


def read_usage(dataset: Dataset, plan: SwapPlan) -> Usage:
    """Read it again.

    Raises:
        DatasetError: it is missing or damaged.
    """
    where = dataset.storage.path(plan.usage_path)
    try:
        rows = json.loads(dataset.storage.read(plan.usage_path))["uses"]
        return Usage({(what, one, two): count for what, one, two, count in rows}, min_seen=plan.min_seen)
    except FileNotFoundError as problem:
        raise DatasetError(f"{where} is missing; run `negatives kind=swaps` again") from problem
    except (ValueError, KeyError, TypeError) as problem:
        raise DatasetError(f"{where} is damaged ({problem}); remove it and run `negatives` again") from problem


def swap_table(made: list[list[tuple[int, Swap]]]) -> pa.Table:
    """Wrong captions, the number of the annotation that each is made of, and what was exchanged."""
    import pyarrow as pa

    return pa.table(
        {
            "captions": pa.array([[swap.text for _, swap in row] for row in made], pa.list_(pa.string())),
            "annotations": pa.array([[number for number, _ in row] for row in made], pa.list_(pa.int32())),
            "kinds": pa.array([[swap.kind for _, swap in row] for row in made], pa.list_(pa.string())),
        }
    )
