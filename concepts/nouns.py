"""The column `nouns`: what the texts of each record name, found once and counted for a vocabulary, one shard at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from concepts.phrases import RULES, RULES_NAME, PhraseConfig, PhraseExtractor, TextTally, tally_texts
from concepts.vocabulary import count_phrases
from shards.config import canonical_json, digest
from shards.errors import DatasetError
from shards.reader import open_dataset
from shards.records import Caption, Entailment, Grounding, Question, Record, Statement
from shards.sidecar import open_sidecar, sidecar_folder, sidecar_shards, write_sidecar

NOUNS = "nouns"
SCHEMA = 3  # 1 had no tallies, 2 phrases of any length
TALLIED = ("texts", "empty", "cut", "foreign")


@dataclass(frozen=True, slots=True)
class ShardUnit:
    """One shard of one dataset."""

    dataset: str  # folder or address
    shard: int  # number in the manifest


@dataclass(frozen=True, slots=True)
class TextUnit:
    """A slice of captions that belong to no record. Its counts are kept beside the nouns of a dataset."""

    dataset: str
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NounCount:
    """What was counted in one unit; `counts` in the order of first sight."""

    tally: TextTally
    counts: Mapping[str, int]

    @property
    def captions(self) -> int:
        """How many texts were read."""
        return self.tally.texts


class NounCounter:
    """Finds the nouns of a shard's captions, stores them as the column `nouns`, and counts them."""

    def __init__(self, config: PhraseConfig, *, tagger: str) -> None:
        """Args:
        config: how nouns are found.
        tagger: the tagger that has to run, by its name: all workers count alike.

        Raises:
            DatasetError: this process finds another tagger than the one named.
        """
        # Where the run settled on the rules, a worker that happens to have a better tagger follows.
        self._extractor = PhraseExtractor(
            config.model_copy(update={"tagger": RULES}) if tagger == RULES_NAME else config
        )
        if self._extractor.name != tagger:
            raise DatasetError(
                f"this worker would tag with {self._extractor.name} where {tagger} is wanted; "
                "set phrases.tagger to one that all workers have"
            )
        self._max_words = config.max_words
        self._card = _card(config, tagger)
        self._digest8 = nouns_digest8(config, tagger)

    def __call__(self, unit: ShardUnit | TextUnit) -> NounCount:
        return self._count_texts(unit) if isinstance(unit, TextUnit) else self._count_shard(unit)

    def _count_shard(self, unit: ShardUnit) -> NounCount:
        import pyarrow as pa

        dataset = open_dataset(unit.dataset)
        entry = dataset.manifest[unit.shard]
        if entry.name in sidecar_shards(dataset.storage, NOUNS, self._digest8):
            table = open_sidecar(dataset, f"{NOUNS}-{self._digest8}").table(unit.shard)
            tally = TextTally(**{name: sum(table[name].to_pylist()) for name in TALLIED})
            return NounCount(tally=tally, counts=count_phrases(table["nouns"].to_pylist()))
        keys: list[str] = []
        texts: list[str] = []
        sizes: list[int] = []
        tallies: list[TextTally] = []
        for record in dataset.records(unit.shard, payload=False):
            mine = list(record_texts(record))
            keys.append(record.key)
            texts += mine
            sizes.append(len(mine))
            tallies.append(tally_texts(mine, max_words=self._max_words))
        found = iter(self._extractor.phrases(texts))
        nouns = [[phrase for _ in range(size) for phrase in next(found)] for size in sizes]
        counted = {name: pa.array([getattr(tally, name) for tally in tallies], pa.int32()) for name in TALLIED}
        write_sidecar(
            dataset.storage,
            column=NOUNS,
            digest8=self._digest8,
            shard=entry.name,
            keys=keys,
            values=pa.table({"nouns": pa.array(nouns, pa.list_(pa.string())), **counted}),
            card=self._card,
        )
        return NounCount(tally=sum(tallies, TextTally()), counts=count_phrases(nouns))

    def _count_texts(self, unit: TextUnit) -> NounCount:
        storage = open_dataset(unit.dataset).storage
        name = f"{sidecar_folder(NOUNS, self._digest8)}/texts/{digest(list(unit.captions))}.json"
        tally = tally_texts(unit.captions, max_words=self._max_words)
        if storage.exists(name):
            # A list of pairs, since canonical JSON would sort the keys of an object and lose the order of first sight.
            return NounCount(tally=tally, counts=dict(json.loads(storage.read(name))))
        counts = count_phrases(self._extractor.phrases(unit.captions))
        storage.create(name, canonical_json([list(pair) for pair in counts.items()]))
        return NounCount(tally=tally, counts=counts)


def nouns_digest8(config: PhraseConfig, tagger: str) -> str:
    """Names the `nouns` column that a tagger makes of what the config asks for."""
    return digest({"column": NOUNS, **_card(config, tagger)})[:8]


def _card(config: PhraseConfig, tagger: str) -> dict[str, Any]:
    return {"tagger": tagger, "kinds": list(config.kinds), "max_words": config.max_words, "schema": SCHEMA}


def record_texts(record: Record) -> Iterator[str]:
    """The texts of a record that tell what is in its picture."""
    for annotation in record.annotations:
        match annotation:
            case Caption() | Grounding() | Statement():
                yield annotation.text
            case Question():
                yield annotation.question
            case Entailment():
                yield from filter(None, (annotation.premise, annotation.hypothesis))
            case _:
                pass
