"""The column `image_embedding`: each picture as a CLIP sees it, one shard at a time, kept as halves.

It is named by the model alone, so that another vocabulary or k finds it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from concepts.embed import ClipEmbedder, EmbedderConfig
from shards.config import canonical_json, digest
from shards.errors import DatasetError
from shards.reader import Dataset
from shards.records import Record
from shards.sidecar import open_sidecar, sidecar_folder, sidecar_shards, write_sidecar

if TYPE_CHECKING:
    import pyarrow as pa

EMBEDDING = "image_embedding"
SECOND_EMBEDDING = "second_embedding"  # in it, of the second picture of records that hold two
SCHEMA = 2  # 1 had no nulls, and stopped at a picture that could not be decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEmbeddings:
    """The embeddings of a shard's pictures in its order; NaN where a picture cannot be decoded.

    Attributes:
        first: (N, D), of each record's only or first picture.
        second: (N, D), of its second one; None where records hold one.
        fresh: pictures that went through the model for them now.
        problems: of those, by the record's key, why one has no embedding.
    """

    first: npt.NDArray[np.float16]
    second: npt.NDArray[np.float16] | None
    fresh: int
    problems: Mapping[str, str]


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
        """The (N, D) embeddings of a shard in its order, and how many pictures went through the model for them now.

        A picture that cannot be decoded has a row of NaN; `picture_problems` says why.

        Raises:
            DatasetError: its records hold two pictures each.
        """
        found = self.embed(dataset, shard)
        if found.second is not None:
            raise DatasetError(
                f"{dataset.path}: its records hold two pictures each; this needs records with exactly one"
            )
        return found.first, found.fresh

    def embed(self, dataset: Dataset, shard: int) -> ShardEmbeddings:
        """Find the embeddings of a shard's pictures, of one or two per record, or make and store them."""
        digest8 = embedding_digest8(self._card)
        first = stored_vectors(dataset, shard, digest8)
        if first is not None:
            second = stored_vectors(dataset, shard, digest8, column=SECOND_EMBEDDING)
            return ShardEmbeddings(first=first, second=second, fresh=0, problems={})
        made = self._embed(dataset, shard)
        name = dataset.manifest[shard].name
        if made.problems:  # before the embeddings, which say that the shard is done
            dataset.storage.create(_problem_file(digest8, name), canonical_json(dict(made.problems)))
        write_sidecar(
            dataset.storage,
            column=EMBEDDING,
            digest8=digest8,
            shard=name,
            keys=dataset.index(shard).keys,
            values=embedding_table(made.first, made.second),
            card={"embedder": self._card, "schema": SCHEMA},
        )
        return made

    def _embed(self, dataset: Dataset, shard: int) -> ShardEmbeddings:
        """Embed a shard's pictures, a few batches of encoded bytes in memory at a time."""
        embedder = self._loaded()
        owners: list[str] = []  # the key of each picture's record

        def pictures() -> Iterator[bytes]:
            for record in dataset.records(shard):
                found = pictures_of(record, where=dataset.path)
                owners.extend([record.key] * len(found))
                yield from found

        rows: list[npt.NDArray[np.float16]] = [np.zeros((0, embedder.dimension), np.float16)]
        problems: dict[str, str] = {}
        done = 0
        for batch in embedder.stream(pictures()):
            rows.append(batch.vectors.astype(np.float16))
            problems.update({owners[done + place]: problem for place, problem in batch.problems.items()})
            places = range(done, done + len(batch.vectors))
            done = places.stop
            if self._on_pictures is not None:  # of records, each where its first picture is done
                self._on_pictures(sum(place == 0 or owners[place] != owners[place - 1] for place in places))
        vectors = np.concatenate(rows)
        records = len(dataset.index(shard).keys)
        if len(vectors) not in (records, 2 * records):
            raise DatasetError(
                f"{dataset.path}: {dataset.manifest[shard].name} mixes records of one and of two pictures; "
                "convert them into two datasets"
            )
        pairs = len(vectors) == 2 * records and records > 0
        return ShardEmbeddings(
            first=vectors[::2] if pairs else vectors,
            second=vectors[1::2] if pairs else None,
            fresh=len(vectors),
            problems=problems,
        )

    def _loaded(self) -> ClipEmbedder:
        if self._embedder is None:
            self._embedder = ClipEmbedder(self._config)
        if self._embedder.card != self._card:
            raise DatasetError(
                f"this worker loaded other weights ({self._embedder.weights_digest}) for {self._config.model} than the run was "
                f"started with ({self._card['weights']}); give all workers the same file"
            )
        return self._embedder


def embedding_digest8(card: Mapping[str, Any]) -> str:
    """Names the embeddings that an embedder with this card makes."""
    return digest({"column": EMBEDDING, "schema": SCHEMA, "embedder": dict(card)})[:8]


def stored_vectors(
    dataset: Dataset, shard: int, digest8: str, *, column: str = "embedding"
) -> npt.NDArray[np.float16] | None:
    """The (N, D) embeddings of a shard in its order, NaN where a picture has none; None where they are not made.

    Args:
        dataset: what they are about.
        shard: number in the manifest.
        digest8: names the embeddings.
        column: `embedding`, or `second_embedding` for the second pictures of records that hold two.

    Raises:
        DatasetError: the column is about other records than the dataset's.
    """
    name = dataset.manifest[shard].name
    if name not in sidecar_shards(dataset.storage, EMBEDDING, digest8):
        return None
    table = open_sidecar(dataset, f"{EMBEDDING}-{digest8}").table(shard)
    if table["key"].to_pylist() != list(dataset.index(shard).keys):
        raise DatasetError(
            f"{dataset.path}: {EMBEDDING}-{digest8} holds other records for {name} than the dataset does; it belongs to another "
            "dataset: remove it and make it again"
        )
    if column not in table.column_names:
        return None
    lists = table[column].combine_chunks()
    whole = np.asarray(lists.is_valid())
    vectors = np.full((len(lists), lists.type.list_size), np.nan, np.float16)
    vectors[whole] = lists.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, vectors.shape[1])
    return vectors


def picture_problems(dataset: Dataset, digest8: str) -> dict[str, str]:
    """By key, why a picture of a dataset has a null for its embedding."""
    folder = _problem_file(digest8, "").rpartition("/")[0]
    found: dict[str, str] = {}
    for name in dataset.storage.list(folder):
        found.update(json.loads(dataset.storage.read(name)))
    return found


def _problem_file(digest8: str, shard: str) -> str:
    return f"{sidecar_folder(EMBEDDING, digest8)}/problems/{shard}.json"


def pictures_of(record: Record, *, where: str) -> tuple[bytes, ...]:
    """The one or two pictures of a record, as encoded bytes.

    Raises:
        DatasetError: it has none, or more.
    """
    members = [media.member for media in record.media if media.kind == "image"]
    if len(members) not in (1, 2):
        raise DatasetError(
            f"{where}: record {record.key!r} has {len(members)} pictures; concepts are made for records with one or two"
        )
    return tuple(record.payload[member] for member in members)


def embedding_table(first: npt.NDArray[np.float16], second: npt.NDArray[np.float16] | None = None) -> pa.Table:
    """One fixed-size list of D halves per row and picture; null for a row of NaN."""
    import pyarrow as pa

    columns = {"embedding": _half_lists(first)}
    if second is not None:
        columns[SECOND_EMBEDDING] = _half_lists(second)
    return pa.table(columns)


def _half_lists(vectors: npt.NDArray[np.float16]) -> pa.FixedSizeListArray:
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float16())
    missing = ~np.isfinite(vectors).all(axis=1)
    mask = pa.array(missing) if missing.any() else None
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=mask)
