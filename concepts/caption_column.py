"""The column `caption_embedding`: each caption as a CLIP reads it, one shard at a time, with the captions themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from concepts.embed import ClipEmbedder, EmbedderConfig
from concepts.nouns import ShardUnit
from concepts.picture_column import PictureEmbedder, stored_vectors
from shards.config import digest
from shards.errors import DamagedRecordError
from shards.reader import Dataset, open_dataset
from shards.records import Caption
from shards.sidecar import open_sidecar, sidecar_shards, write_sidecar

if TYPE_CHECKING:
    import pyarrow as pa

CAPTION_EMBEDDING = "caption_embedding"
SCHEMA = 1

Halves = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionBlock:
    """Captions of some pictures, in the order of the data.

    Attributes:
        texts: M captions.
        sources: the key of the picture that each belongs to.
        vectors: (M, D) float16 text embeddings.
        pictures: (M, D) float16 embeddings of the pictures they belong to, where those are guarded against, too.
    """

    texts: Sequence[str]
    sources: npt.NDArray[np.object_]
    vectors: Halves
    pictures: Halves | None = None


class PairEmbedder(PictureEmbedder):
    """Sees to it that a shard has the embeddings of its pictures and, where they are wanted, of their captions."""

    def __init__(
        self,
        config: EmbedderConfig,
        card: Mapping[str, Any],
        *,
        embedder: ClipEmbedder | None = None,
        with_captions: bool = True,
    ) -> None:
        """Args:
        config: how to load the model.
        card: the card that the loaded model must have.
        embedder: the loaded model, where this process has it already.
        with_captions: False for pictures alone.
        """
        super().__init__(config, card, embedder=embedder)
        self._with_captions = with_captions

    def begin(self) -> Callable[[ShardUnit], int]:
        """The factory that an executor calls once per worker."""
        return self

    def __call__(self, unit: ShardUnit) -> int:
        """Returns how many pictures went through the model."""
        dataset = open_dataset(unit.dataset)
        _, embedded = self.vectors(dataset, unit.shard)
        if self._with_captions and dataset.manifest[unit.shard].name not in sidecar_shards(
            dataset.storage, CAPTION_EMBEDDING, caption_digest8(self._card)
        ):
            self._embed_captions(dataset, unit.shard)
        return embedded

    def _embed_captions(self, dataset: Dataset, shard: int) -> None:
        name = dataset.manifest[shard].name
        records = list(dataset.records(shard, payload=False))
        captions = [[item.text for item in record.annotations if isinstance(item, Caption)] for record in records]
        vectors = self._loaded().texts([text for texts in captions for text in texts]).astype(np.float16)
        owners = np.repeat(np.arange(len(records)), [len(texts) for texts in captions])
        bad = owners[~np.isfinite(vectors).all(axis=1)]
        if bad.size:
            raise DamagedRecordError(
                f"{name}, record {records[bad[0]].key!r}: a caption's embedding is not finite; "
                "try embedder.precision=fp32"
            )
        write_sidecar(
            dataset.storage,
            column=CAPTION_EMBEDDING,
            digest8=caption_digest8(self._card),
            shard=name,
            keys=[record.key for record in records],
            values=caption_table(captions, vectors),
            card={"embedder": self._card, "schema": SCHEMA},
        )


def caption_digest8(card: Mapping[str, Any]) -> str:
    """Names the caption embeddings that an embedder with this card makes: by the model alone."""
    return digest({"column": CAPTION_EMBEDDING, "schema": SCHEMA, "embedder": dict(card)})[:8]


def caption_block(dataset: Dataset, shard: int, digest8: str) -> CaptionBlock:
    """Read the captions of a shard with their embeddings."""
    table = open_sidecar(dataset, f"{CAPTION_EMBEDDING}-{digest8}").table(shard)
    lists = table["captions"].combine_chunks()
    embeddings = table["embeddings"].combine_chunks().flatten()
    flat: Halves = embeddings.flatten().to_numpy(zero_copy_only=False)
    return CaptionBlock(
        texts=lists.flatten().to_pylist(),
        sources=np.repeat(
            np.asarray(table["key"].to_pylist(), np.object_), lists.value_lengths().to_numpy(zero_copy_only=False)
        ),
        vectors=flat.reshape(-1, embeddings.type.list_size),
    )


def captions_with_pictures(dataset: Dataset, shard: int, *, captions: str, pictures: str) -> CaptionBlock:
    """Read the captions of a shard with their embeddings and with those of the pictures they belong to.

    Args:
        dataset: what holds them.
        shard: number in the manifest.
        captions: digest that names the embeddings of captions.
        pictures: digest that names those of pictures; where a shard has none, the block is without them.
    """
    block = caption_block(dataset, shard, captions)
    vectors = stored_vectors(dataset, shard, pictures)
    if vectors is None:
        return block
    places = {key: place for place, key in enumerate(dataset.index(shard).keys)}
    return replace(block, pictures=vectors[[places[key] for key in block.sources.tolist()]])


def caption_table(captions: Sequence[Sequence[str]], vectors: Halves) -> pa.Table:
    """The captions of each record and, in the same order, their embeddings.

    Args:
        captions: of each record.
        vectors: (M, D), of all captions in a row.
    """
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float16())
    rows = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    offsets = pa.array(np.cumsum([0, *map(len, captions)]), pa.int32())
    return pa.table(
        {
            "captions": pa.array(captions, pa.list_(pa.string())),
            "embeddings": pa.ListArray.from_arrays(offsets, rows),
        }
    )
