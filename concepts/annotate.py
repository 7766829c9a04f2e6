"""The columns `image_embedding` and `concepts`, one shard at a time.

What runs here checks first whether its part is there, so running again, two workers at the same shard, or a killed run cost at
most the shard in hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from concepts.bank import ConceptBank, read_bank
from concepts.embed import ClipEmbedder, EmbedderConfig
from concepts.nouns import ShardUnit
from concepts.select import Selection, select_concepts
from concepts.vocabulary import read_vocabulary
from shards.config import digest
from shards.errors import DatasetError
from shards.reader import Dataset, open_dataset
from shards.records import Record
from shards.sidecar import open_sidecar, sidecar_folder, sidecar_shards, write_sidecar

if TYPE_CHECKING:
    import pyarrow as pa

EMBEDDING, CONCEPTS = "image_embedding", "concepts"
VOCABULARY_FILE, BANK_FILE = "vocabulary.json", "bank.npy"
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptPlan:
    """What decides the bytes of the columns `image_embedding` and `concepts`; small, and the same in every worker."""

    embedder: Mapping[str, Any]  # the embedder's card
    vocabulary: str  # digest
    bank: str  # digest
    phrases: int
    top_k: int

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
        }

    @property
    def folder(self) -> str:
        """Where the concepts, their vocabulary and their bank lie in a dataset."""
        return sidecar_folder(CONCEPTS, self.concepts_digest8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated:
    """What became of one shard."""

    pictures: int
    embedded: int  # pictures that went through the model; 0 where their embeddings were there
    unreported: int  # pictures of which `on_pictures` has not been told


class PictureEmbedder:
    """Finds the embeddings of a shard's pictures, or makes and stores them.

    It pickles without its loaded model and without its listener; a worker loads the model when it first needs one, and makes sure
    that it is the very model that the run was started with.
    """

    def __init__(
        self,
        config: EmbedderConfig,
        card: Mapping[str, Any],
        *,
        embedder: ClipEmbedder | None = None,
        on_pictures: Callable[[int], None] | None = None,
    ) -> None:
        """Args:
        config: how to load the model.
        card: the card that the loaded model must have.
        embedder: the loaded model, where this process has it already.
        on_pictures: told of every batch, while work runs in this process.
        """
        self._config = config
        self._card = dict(card)
        self._embedder = embedder
        self._on_pictures = on_pictures

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_embedder": None, "_on_pictures": None}

    def vectors(self, dataset: Dataset, shard: int) -> tuple[npt.NDArray[np.float16], int]:
        """The (N, D) embeddings of a shard in its order, and how many pictures went through the model for them now."""
        vectors = stored_vectors(dataset, shard, embedding_digest8(self._card))
        if vectors is not None:
            return vectors, 0
        vectors = self._embed(dataset, shard)
        keys = dataset.index(shard).keys
        write_sidecar(
            dataset.storage,
            column=EMBEDDING,
            digest8=embedding_digest8(self._card),
            shard=dataset.manifest[shard].name,
            keys=keys,
            values=embedding_table(vectors),
            card={"embedder": self._card, "schema": SCHEMA},
        )
        return vectors, len(keys)

    def _embed(self, dataset: Dataset, shard: int) -> npt.NDArray[np.float16]:
        """Embed a shard's pictures, a few batches of encoded bytes in memory at a time.

        Returns:
            (N, D) float16, in the shard's order.
        """
        embedder = self._loaded()
        rows: list[npt.NDArray[np.float16]] = [np.zeros((0, embedder.dimension), np.float16)]
        for records in _chunks(dataset.records(shard), 4 * self._config.batch_size):
            pictures = [picture_of(record, where=dataset.path) for record in records]
            names = [f"{dataset.manifest[shard].name}, record {record.key!r}" for record in records]
            rows.append(embedder.images(pictures, names=names).astype(np.float16))
            if self._on_pictures is not None:
                self._on_pictures(len(records))
        return np.concatenate(rows)

    def _loaded(self) -> ClipEmbedder:
        if self._embedder is None:
            self._embedder = ClipEmbedder(self._config)
        if self._embedder.card != self._card:
            raise DatasetError(
                f"this worker loaded other weights ({self._embedder.weights_digest}) for {self._config.model} than the run was "
                f"started with ({self._card['weights']}); give all workers the same file"
            )
        return self._embedder


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
        vectors, embedded = self.vectors(dataset, unit.shard)
        bank = self._bank_of(dataset)
        write_sidecar(
            dataset.storage,
            column=CONCEPTS,
            digest8=self._plan.concepts_digest8,
            shard=entry.name,
            keys=keys,
            values=concept_table(select_concepts(vectors, bank, self._plan.top_k), bank.phrases),
            card=self._plan.card,
        )
        return Annotated(
            pictures=len(keys), embedded=embedded, unreported=0 if self._on_pictures and embedded else len(keys)
        )

    def _bank_of(self, dataset: Dataset) -> ConceptBank:
        if self._bank is None or self._bank[0] != dataset.path:
            vocabulary = read_vocabulary(dataset.storage, f"{self._plan.folder}/{VOCABULARY_FILE}")
            bank = read_bank(
                dataset.storage, f"{self._plan.folder}/{BANK_FILE}", vocabulary=vocabulary, digest=self._plan.bank
            )
            self._bank = (dataset.path, bank)
        return self._bank[1]


def embedding_digest8(card: Mapping[str, Any]) -> str:
    """Names the embeddings that an embedder with this card makes."""
    return digest({"column": EMBEDDING, "schema": SCHEMA, "embedder": dict(card)})[:8]


def stored_vectors(dataset: Dataset, shard: int, digest8: str) -> npt.NDArray[np.float16] | None:
    """The (N, D) embeddings of a shard in its order; None where they are not made yet."""
    if dataset.manifest[shard].name not in sidecar_shards(dataset.storage, EMBEDDING, digest8):
        return None
    column = open_sidecar(dataset, f"{EMBEDDING}-{digest8}").table(shard)["embedding"].combine_chunks()
    flat: npt.NDArray[np.float16] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1)


def picture_of(record: Record, *, where: str) -> bytes:
    """The one picture of a record, as encoded bytes.

    Raises:
        DatasetError: it has none, or several.
    """
    members = [media.member for media in record.media if media.kind == "image"]
    if len(members) != 1:
        raise DatasetError(
            f"{where}: record {record.key!r} has {len(members)} pictures; concepts are made for records with exactly one"
        )
    return record.payload[members[0]]


def embedding_table(vectors: npt.NDArray[np.float16]) -> pa.Table:
    """One fixed-size list of D halves per row."""
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float16())
    return pa.table({"embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])})


def concept_table(selection: Selection, phrases: Sequence[str]) -> pa.Table:
    """Phrases and scores, best first."""
    import pyarrow as pa

    chosen = [[phrases[place] for place in row] for row in selection.indices.tolist()]
    return pa.table(
        {
            "phrases": pa.array(chosen, pa.list_(pa.string())),
            "scores": pa.array(selection.scores.tolist(), pa.list_(pa.float32())),
        }
    )


def _chunks(records: Iterator[Record], size: int) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
