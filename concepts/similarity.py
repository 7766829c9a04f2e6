"""The column `similarity`: the cosine of every caption with its own picture, by CLIP; streams and filters choose by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from concepts.annotate import EMBEDDING, embedding_digest8, stored_vectors
from concepts.caption_column import CAPTION_EMBEDDING, caption_block, caption_digest8
from concepts.nouns import ShardUnit
from shards.config import digest
from shards.errors import DatasetError
from shards.reader import Dataset, open_dataset
from shards.sidecar import open_sidecar, write_sidecar

if TYPE_CHECKING:
    import pyarrow as pa

SIMILARITY = "similarity"
SCHEMA = 1
PAIRS = 4096  # compared at once: 32 MiB of float64 at 512 dimensions

Scores = npt.NDArray[np.float32]


def similarity_digest8(card: Mapping[str, Any]) -> str:
    """Names the similarities that an embedder with this card tells."""
    return digest({"column": SIMILARITY, "schema": SCHEMA, "embedder": dict(card)})[:8]


class SimilarityScorer:
    """Compares the captions of one shard with their pictures; needs their embeddings, and no model."""

    def __init__(self, embedder: Mapping[str, Any]) -> None:
        """Args:
        embedder: the card of the embedder whose embeddings are compared.
        """
        self._card = dict(embedder)

    def begin(self) -> Callable[[ShardUnit], int]:
        """The factory that an executor calls once per worker."""
        return self

    def __call__(self, unit: ShardUnit) -> int:
        """Returns how many pictures the shard holds."""
        dataset = open_dataset(unit.dataset)
        index, pictures = dataset.index(unit.shard), embedding_digest8(self._card)
        vectors = stored_vectors(dataset, unit.shard, pictures)
        if vectors is None:
            raise DatasetError(f"{dataset.path}: {EMBEDDING}-{pictures} lacks {index.name}; run the same command again")
        captions = caption_block(dataset, unit.shard, caption_digest8(self._card))
        places = {key: place for place, key in enumerate(index.keys)}
        owners = np.asarray([places[key] for key in captions.sources.tolist()], np.int64)
        counts = np.bincount(owners, minlength=len(index))
        if not np.array_equal(counts, index.annotations):
            at = int(np.flatnonzero(counts != index.annotations)[0])
            raise DatasetError(
                f"{dataset.path}: record {index.keys[at]!r} has {index.annotations[at]} annotations of which {counts[at]} are "
                "captions; similarity is told of captions alone, so give a dataset of captions"
            )
        write_sidecar(
            dataset.storage,
            column=SIMILARITY,
            digest8=similarity_digest8(self._card),
            shard=index.name,
            keys=index.keys,
            values=_by_record({SIMILARITY: pair_cosines(vectors, owners, captions.vectors)}, index.annotations),
            card={
                "schema": SCHEMA,
                "embedder": self._card,
                EMBEDDING: f"{EMBEDDING}-{pictures}",
                CAPTION_EMBEDDING: f"{CAPTION_EMBEDDING}-{caption_digest8(self._card)}",
            },
        )
        return len(index)


def pair_cosines(pictures: npt.NDArray[Any], owners: npt.NDArray[np.int64], captions: npt.NDArray[Any]) -> Scores:
    """The cosine of each caption with its picture.

    Args:
        pictures: (N, D) float16; a row of NaN has no cosine.
        owners: (M,) the picture of each caption.
        captions: (M, D) float16.

    Returns:
        (M,) cosines, summed in float64 as `concepts.select` does; NaN where there is none.
    """
    found = np.empty(len(owners), np.float32)
    for start in range(0, len(owners), PAIRS):
        pairs = slice(start, start + PAIRS)
        left, right = pictures[owners[pairs]].astype(np.float64), captions[pairs].astype(np.float64)
        lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found[pairs] = np.einsum("md,md->m", left, right) / lengths
    return found


def stored_similarities(dataset: Dataset, shard: int, digest8: str) -> Scores:
    """Read the (M,) cosines of a shard's captions, in the order of its index; NaN where there is none."""
    index = dataset.index(shard)
    table = open_sidecar(dataset, f"{SIMILARITY}-{digest8}").table(shard)
    lists = table[SIMILARITY].combine_chunks()
    if table["key"].to_pylist() != list(index.keys) or not np.array_equal(lists.value_lengths(), index.annotations):
        raise DatasetError(
            f"{dataset.path}: {SIMILARITY}-{digest8} is about other captions than {index.name} holds; remove it and make it again"
        )
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False), np.float32)


def write_selection(
    dataset: Dataset,
    kept: npt.NDArray[np.bool_],
    *,
    column: str,
    digest8: str,
    card: Mapping[str, Any],
    duplicate_of: Sequence[str | None] | None = None,
) -> None:
    """Write what is kept as a column that a stream takes for `select`.

    Args:
        dataset: whose captions are chosen.
        kept: one truth value per annotation of the dataset, in its order.
        column: its name.
        digest8: of all that decides it.
        card: what decides it, and what came of it.
        duplicate_of: per record, the key of the one that is kept in its place; None where it is like none before it.
    """
    import pyarrow as pa

    start = first = 0
    for shard, entry in enumerate(dataset.manifest):
        index = dataset.index(shard)
        end, last = start + int(index.annotations.sum()), first + len(index)
        values = _by_record({"keep": kept[start:end]}, index.annotations)
        if duplicate_of is not None:
            values = values.append_column("duplicate_of", pa.array(duplicate_of[first:last], pa.string()))
        write_sidecar(
            dataset.storage,
            column=column,
            digest8=digest8,
            shard=entry.name,
            keys=index.keys,
            values=values,
            card=card,
        )
        start, first = end, last


def _by_record(values: Mapping[str, npt.NDArray[Any]], counts: npt.NDArray[np.integer[Any]]) -> pa.Table:
    """Lists of one value per annotation; NaN becomes null."""
    import pyarrow as pa

    offsets = pa.array(np.concatenate(([0], np.cumsum(counts))), pa.int32())
    return pa.table(
        {name: pa.ListArray.from_arrays(offsets, pa.array(flat, from_pandas=True)) for name, flat in values.items()}
    )
