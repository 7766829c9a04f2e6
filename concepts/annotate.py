"""The column `concepts`: what each picture shows, one shard at a time.

What runs here checks first whether its part is there, so running again, two workers at the same shard, or a killed run cost at
most the shard in hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from concepts.bank import ConceptBank, read_bank
from concepts.embed import ClipEmbedder, EmbedderConfig
from concepts.nouns import ShardUnit
from concepts.picture_column import EMBEDDING, SCHEMA, PictureEmbedder, embedding_digest8, stored_vectors
from concepts.select import NOTHING, Selection, select_concepts
from concepts.vocabulary import read_vocabulary
from shards.config import digest
from shards.errors import DatasetError
from shards.reader import Dataset, open_dataset
from shards.sidecar import sidecar_folder, write_sidecar

if TYPE_CHECKING:
    import pyarrow as pa

# The embeddings have a file of their own; those who look for them here find them.
__all__ = [
    "BANK_FILE",
    "CONCEPTS",
    "EMBEDDING",
    "VOCABULARY_FILE",
    "Annotated",
    "ConceptAnnotator",
    "ConceptPlan",
    "PictureEmbedder",
    "concept_table",
    "embedding_digest8",
    "stored_vectors",
]

CONCEPTS = "concepts"
VOCABULARY_FILE, BANK_FILE = "vocabulary.json", "bank.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptPlan:
    """What decides the bytes of the columns `image_embedding` and `concepts`; small, and the same in every worker."""

    embedder: Mapping[str, Any]  # the embedder's card
    vocabulary: str  # digest
    bank: str  # digest
    phrases: int
    top_k: int
    min_score: float = -1.0
    max_likeness: float = 1.0

    @property
    def embedding_digest8(self) -> str:
        """Names the embeddings: by the model alone, so that another vocabulary or k finds them again."""
        return embedding_digest8(self.embedder)

    @property
    def concepts_digest8(self) -> str:
        """Names the concepts: by everything."""
        return digest({"column": CONCEPTS, "schema": SCHEMA, "plan": self.card})[:8]

    @property
    def card(self) -> dict[str, Any]:
        """What `column.json` of the concepts says."""
        return {
            "embedder": dict(self.embedder),
            "image_embedding": f"{EMBEDDING}-{self.embedding_digest8}",
            "vocabulary": self.vocabulary,
            "bank": self.bank,
            "phrases": self.phrases,
            "top_k": self.top_k,
            "min_score": self.min_score,
            "max_likeness": self.max_likeness,
        }

    @property
    def folder(self) -> str:
        """Where the concepts, their vocabulary and their bank lie in a dataset."""
        return sidecar_folder(CONCEPTS, self.concepts_digest8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated:
    """What became of one shard."""

    pictures: int  # or pairs of them: records
    embedded: int  # pictures that went through the model; 0 where their embeddings were there
    unreported: int  # records of which `on_pictures` has not been told
    problems: Mapping[str, str]  # by key, why a picture embedded now has no embedding


class ConceptAnnotator(PictureEmbedder):
    """Embeds the pictures of a shard and chooses their concepts."""

    def __init__(
        self,
        config: EmbedderConfig,
        plan: ConceptPlan,
        *,
        embedder: ClipEmbedder | None = None,
        on_pictures: Callable[[int], None] | None = None,
    ) -> None:
        """Args:
        config: how to load the model.
        plan: what is to be made.
        embedder: the loaded model, where this process has it already.
        on_pictures: told of every batch, while work runs in this process.
        """
        super().__init__(config, plan.embedder, embedder=embedder, on_pictures=on_pictures)
        self._plan = plan
        self._bank: tuple[str, ConceptBank] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_bank": None}

    def begin(self) -> Callable[[ShardUnit], Annotated]:
        """The factory that an executor calls once per worker."""
        return self

    def __call__(self, unit: ShardUnit) -> Annotated:
        dataset = open_dataset(unit.dataset)
        entry = dataset.manifest[unit.shard]
        keys = dataset.index(unit.shard).keys
        found = self.embed(dataset, unit.shard)
        bank = self._bank_of(dataset)
        plan = self._plan
        chosen = [
            select_concepts(vectors, bank, plan.top_k, min_score=plan.min_score, max_likeness=plan.max_likeness)
            for vectors in (found.first, found.second)
            if vectors is not None
        ]
        write_sidecar(
            dataset.storage,
            column=CONCEPTS,
            digest8=plan.concepts_digest8,
            shard=entry.name,
            keys=keys,
            values=concept_table(chosen[0], bank.phrases, *chosen[1:]),
            card=plan.card,
        )
        return Annotated(
            pictures=len(keys),
            embedded=found.fresh,
            unreported=0 if self._on_pictures and found.fresh else len(keys),
            problems=found.problems,
        )

    def _bank_of(self, dataset: Dataset) -> ConceptBank:
        if self._bank is None or self._bank[0] != dataset.path:
            vocabulary = read_vocabulary(dataset.storage, f"{self._plan.folder}/{VOCABULARY_FILE}")
            if vocabulary.digest != self._plan.vocabulary:
                raise DatasetError(
                    f"{dataset.path}: {self._plan.folder}/{VOCABULARY_FILE} is another vocabulary ({vocabulary.digest[:8]}) "
                    f"than the run was started with ({self._plan.vocabulary[:8]}); remove the folder and make the column again"
                )
            bank = read_bank(
                dataset.storage, f"{self._plan.folder}/{BANK_FILE}", vocabulary=vocabulary, digest=self._plan.bank
            )
            self._bank = (dataset.path, bank)
        return self._bank[1]


def concept_table(first: Selection, phrases: Sequence[str], second: Selection | None = None) -> pa.Table:
    """Phrases and scores, best first, of each record's picture, or of both."""
    import pyarrow as pa

    columns: dict[str, pa.Array] = {}
    for prefix, selection in (("", first), ("second_", second)):
        if selection is not None:
            whole = selection.indices != NOTHING
            offsets = pa.array(np.concatenate(([0], whole.sum(axis=1).cumsum())), pa.int32())
            words = pa.DictionaryArray.from_arrays(pa.array(selection.indices[whole]), pa.array(phrases, pa.string()))
            scores = pa.array(selection.scores[whole], pa.float32())
            columns[f"{prefix}phrases"] = pa.ListArray.from_arrays(offsets, words.dictionary_decode())
            columns[f"{prefix}scores"] = pa.ListArray.from_arrays(offsets, scores)
    return pa.table(columns)
