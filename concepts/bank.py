"""The concept bank: every phrase of a vocabulary as a vector, in the order of the vocabulary."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from concepts.embed import TOKENIZED, ClipEmbedder
from concepts.vocabulary import Vocabulary
from shards.config import digest
from shards.errors import DatasetError
from shards.storage import Storage

HalfVectors = npt.NDArray[np.float16]


@dataclass(frozen=True)
class ConceptBank:
    """What pictures are compared with.

    Attributes:
        phrases: V phrases, most frequent first.
        vectors: (V, D) float16, unit norm up to rounding; read only.
        digest: names vocabulary, model and templates.
    """

    phrases: tuple[str, ...]
    vectors: HalfVectors
    digest: str

    def __len__(self) -> int:
        return len(self.phrases)


def bank_digest(vocabulary: Vocabulary, embedder: ClipEmbedder) -> str:
    """Name a bank before it is made."""
    return digest(
        {"vocabulary": vocabulary.digest, "embedder": embedder.digest, "templates": list(embedder.config.templates)}
    )


def make_bank(vocabulary: Vocabulary, embedder: ClipEmbedder) -> ConceptBank:
    """Embed every phrase of a vocabulary; a million of them take little more memory than their halves."""
    vectors = np.empty((len(vocabulary), embedder.dimension), np.float16)
    for start in range(0, len(vocabulary), TOKENIZED):
        vectors[start : start + TOKENIZED] = embedder.texts(vocabulary.phrases[start : start + TOKENIZED])
    vectors.setflags(write=False)
    return ConceptBank(phrases=vocabulary.phrases, vectors=vectors, digest=bank_digest(vocabulary, embedder))


def write_bank(storage: Storage, name: str, bank: ConceptBank) -> None:
    """Store the vectors; the phrases are the vocabulary's, which lies beside them. The first writer wins."""
    buffer = io.BytesIO()
    np.save(buffer, bank.vectors, allow_pickle=False)
    storage.create(name, buffer.getvalue())


def read_bank(storage: Storage, name: str, *, vocabulary: Vocabulary, digest: str) -> ConceptBank:
    """Read vectors that `write_bank` stored. From a local folder they are mapped: only what is being compared is in memory.

    Raises:
        FileNotFoundError: there are none.
        DatasetError: they do not fit the vocabulary.
    """
    try:
        vectors = (
            np.load(storage.path(name), mmap_mode="r", allow_pickle=False)
            if storage.is_local
            else np.load(io.BytesIO(storage.read(name)), allow_pickle=False)
        )
    except (ValueError, EOFError) as problem:
        raise DatasetError(
            f"{storage.path(name)} is damaged ({problem}); remove its folder and make the column again"
        ) from problem
    if vectors.ndim != 2 or len(vectors) != len(vocabulary) or vectors.dtype != np.float16:
        raise DatasetError(
            f"{storage.path(name)} holds {vectors.dtype} {vectors.shape} for {len(vocabulary)} phrases; "
            "remove its folder and make the column again"
        )
    vectors.setflags(write=False)
    return ConceptBank(phrases=vocabulary.phrases, vectors=vectors, digest=digest)
