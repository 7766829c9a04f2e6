"""The column `negatives`: for each picture, the captions of other pictures that CLIP finds closest to it.

A caption that may well be true of the picture is no negative: one that means nearly the same as one of its own captions, by the
cosine of their text embeddings, or that has the same words; and one of a picture that is nearly the same. The search is exact
and holds one shard of captions at a time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from concepts.annotate import EMBEDDING, PictureEmbedder, embedding_digest8, stored_vectors
from concepts.nouns import ShardUnit
from concepts.select import top_cosine
from shards.config import digest
from shards.errors import DamagedRecordError, DatasetError
from shards.reader import Dataset, open_dataset
from shards.records import Caption
from shards.sidecar import open_sidecar, sidecar_shards, write_sidecar

if TYPE_CHECKING:
    import pyarrow as pa

NEGATIVES, CAPTION_EMBEDDING = "negatives", "caption_embedding"
SCHEMA = 1
ROWS, COLUMNS = 512, 4096  # pictures and captions at a time: the memory of a search, however large the shards are
GROWTH = 4  # how many times more captions are looked at where the guard left too few

Halves = npt.NDArray[np.float16]
_NO_WORD = re.compile(r"\W+")


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativePlan:
    """What decides the bytes of the column `negatives`; small, and the same in every worker."""

    embedder: Mapping[str, Any]  # the embedder's card
    dataset: str  # digest: every picture's negatives come from all of it
    top_k: int
    guard_cosine: float
    guard_picture: float = 1.0

    @property
    def picture_digest8(self) -> str:
        """Names the embeddings of the pictures, as the concepts use them."""
        return embedding_digest8(self.embedder)

    @property
    def caption_digest8(self) -> str:
        """Names the embeddings of the captions."""
        return caption_digest8(self.embedder)

    @property
    def negatives_digest8(self) -> str:
        """Names the negatives: by everything."""
        return digest({"column": NEGATIVES, "plan": self.card})[:8]

    @property
    def card(self) -> dict[str, Any]:
        """What `column.json` of the negatives says."""
        return {
            "schema": SCHEMA,
            "embedder": dict(self.embedder),
            "image_embedding": f"{EMBEDDING}-{self.picture_digest8}",
            "caption_embedding": f"{CAPTION_EMBEDDING}-{self.caption_digest8}",
            "dataset": self.dataset,
            "top_k": self.top_k,
            "guard_cosine": self.guard_cosine,
            "guard_picture": self.guard_picture,
        }


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Negative:
    """A caption of another picture, and its cosine with this one."""

    text: str
    score: float
    source: str


@dataclass(frozen=True, slots=True)
class _Own:
    """A picture's own captions: what its negatives must not say."""

    key: str
    words: frozenset[str]
    vectors: Halves  # (C, D)
    picture: Halves  # (D,)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guards:
    """Cosines above which a caption, by its own or by its picture's likeness, may be true."""

    caption: float
    picture: float


def mine_negatives(
    keys: Sequence[str],
    vectors: Halves,
    own: CaptionBlock,
    blocks: Iterable[CaptionBlock],
    *,
    top_k: int,
    guard_cosine: float,
    guard_picture: float = 1.0,
) -> list[list[Negative]]:
    """Find the hard captions of each picture.

    Args:
        keys: N pictures.
        vectors: (N, D) float16 embeddings of the pictures.
        own: the captions of these pictures; one without captions has nothing to guard against.
        blocks: all captions to choose from, in the order of the data. Where they are cut does not change the result.
        top_k: captions per picture at most; words that several captions share count once.
        guard_cosine: a caption is left out where its cosine with one of the picture's own captions is larger.
        guard_picture: a caption is left out where the cosine of its picture with this one is larger; 1: none is.

    Returns:
        Per picture its negatives, best first; equal scores in the order of the data.
    """
    guards = _Guards(caption=guard_cosine, picture=guard_picture)
    pictures = _owned(keys, vectors, own)
    best: list[list[Negative]] = [[] for _ in keys]
    for whole in blocks:
        for block in _parts(whole):
            for start in range(0, len(keys), ROWS):
                rows = slice(start, start + ROWS)
                found = _search(block, pictures[rows], vectors[rows], best[rows], top_k=top_k, guards=guards)
                best[rows] = [_merge(before, new, top_k) for before, new in zip(best[rows], found, strict=True)]
    return best


def _search(
    block: CaptionBlock,
    pictures: Sequence[_Own],
    vectors: Halves,
    best: Sequence[Sequence[Negative]],
    *,
    top_k: int,
    guards: _Guards,
) -> list[list[Negative]]:
    """Per picture, what a block may add to its best: looks at few captions first, at more where the guard left too few."""
    added: list[list[Negative]] = [[] for _ in pictures]
    floors = [mine[-1].score if len(mine) == top_k else -np.inf for mine in best]
    open_rows, looked_at = np.arange(len(pictures)), 2 * top_k
    while len(open_rows):
        found = top_cosine(vectors[open_rows], block.vectors, top_k=looked_at)
        still_open: list[int] = []
        for row, places, scores in zip(open_rows.tolist(), found.indices, found.scores, strict=True):
            hopeful = scores > floors[row]  # best first, so once one is hopeless the rest are too
            added[row] = _allowed(block, places[hopeful], scores[hopeful], pictures[row], guards)
            if len(added[row]) < top_k and hopeful.all() and looked_at < len(block.texts):
                still_open.append(row)
        open_rows = np.asarray(still_open, np.int64)
        looked_at *= GROWTH
    return added


def _parts(block: CaptionBlock) -> Iterator[CaptionBlock]:
    for start in range(0, len(block.texts), COLUMNS):
        part = slice(start, start + COLUMNS)
        yield CaptionBlock(
            texts=block.texts[part],
            sources=block.sources[part],
            vectors=block.vectors[part],
            pictures=None if block.pictures is None else block.pictures[part],
        )


def cleaned(text: str) -> str:
    """The words of a caption, without case and punctuation; the caption itself where it has no word."""
    return _NO_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip() or text


def _owned(keys: Sequence[str], vectors: Halves, own: CaptionBlock) -> list[_Own]:
    places: dict[str, list[int]] = {key: [] for key in keys}
    for place, source in enumerate(own.sources):
        places[source].append(place)
    return [
        _Own(key, frozenset(cleaned(own.texts[place]) for place in mine), own.vectors[mine], vectors[row])
        for row, (key, mine) in enumerate(places.items())
    ]


def _allowed(
    block: CaptionBlock,
    places: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    picture: _Own,
    guards: _Guards,
) -> list[Negative]:
    """What the guard leaves of the candidates, each wording once."""
    others = block.sources[places] != picture.key
    places, scores = places[others], scores[others]
    if len(places) and len(picture.vectors):
        nearest = top_cosine(block.vectors[places], picture.vectors, top_k=1).scores[:, 0]
        places, scores = places[nearest <= guards.caption], scores[nearest <= guards.caption]
    if len(places) and block.pictures is not None and guards.picture < 1:
        alike = (
            _cosines(block.pictures[places], picture.picture) > guards.picture
        )  # a picture that could not be read is not
        places, scores = places[~alike], scores[~alike]
    return list(
        _distinct(
            (
                Negative(text=block.texts[place], score=score, source=block.sources[place])
                for place, score in zip(places.tolist(), scores.tolist(), strict=True)
            ),
            besides=picture.words,
        )
    )


def _cosines(vectors: Halves, one: Halves) -> npt.NDArray[np.float64]:
    """(N, D) and (D,) → (N,); as exact as `concepts.select`."""
    left, right = vectors.astype(np.float64), one.astype(np.float64)
    found: npt.NDArray[np.float64] = left @ right / (np.linalg.norm(left, axis=1) * np.linalg.norm(right))
    return found


def _merge(before: list[Negative], found: list[Negative], top_k: int) -> list[Negative]:
    """The best of both; the sort is stable, so among equals those of earlier blocks stay first."""
    if not found:
        return before
    return list(_distinct(sorted([*before, *found], key=lambda negative: -negative.score)))[:top_k]


def _distinct(negatives: Iterable[Negative], besides: frozenset[str] = frozenset()) -> Iterator[Negative]:
    seen = set(besides)
    for negative in negatives:
        words = cleaned(negative.text)
        if words not in seen:
            seen.add(words)
            yield negative


class PairEmbedder(PictureEmbedder):
    """Sees to it that a shard has the embeddings of its pictures and of their captions."""

    def begin(self) -> Callable[[ShardUnit], int]:
        """The factory that an executor calls once per worker."""
        return self

    def __call__(self, unit: ShardUnit) -> int:
        """Returns how many pictures went through the model."""
        dataset = open_dataset(unit.dataset)
        _, embedded = self.vectors(dataset, unit.shard)
        if dataset.manifest[unit.shard].name not in sidecar_shards(
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


class NegativeMiner:
    """Finds the negatives of one shard among the captions of the whole dataset; needs embeddings, and no model."""

    def __init__(self, plan: NegativePlan) -> None:
        self._plan = plan

    def begin(self) -> Callable[[ShardUnit], int]:
        """The factory that an executor calls once per worker."""
        return self

    def __call__(self, unit: ShardUnit) -> int:
        """Returns how many pictures the shard holds."""
        plan = self._plan
        dataset = open_dataset(unit.dataset)
        if dataset.digest != plan.dataset:
            raise DatasetError(
                f"{dataset.path} is another dataset than the run was started with; run `negatives` again"
            )
        vectors = stored_vectors(dataset, unit.shard, plan.picture_digest8)
        if vectors is None:
            raise DatasetError(
                f"{dataset.path}: {EMBEDDING}-{plan.picture_digest8} lacks {dataset.manifest[unit.shard].name}; "
                "run `negatives` again"
            )
        keys = dataset.index(unit.shard).keys
        negatives = mine_negatives(
            keys,
            vectors,
            caption_block(dataset, unit.shard, plan.caption_digest8),
            (self._block(dataset, shard) for shard in range(len(dataset.manifest))),
            top_k=plan.top_k,
            guard_cosine=plan.guard_cosine,
            guard_picture=plan.guard_picture,
        )
        write_sidecar(
            dataset.storage,
            column=NEGATIVES,
            digest8=plan.negatives_digest8,
            shard=dataset.manifest[unit.shard].name,
            keys=keys,
            values=negative_table(negatives),
            card=plan.card,
        )
        return len(keys)

    def _block(self, dataset: Dataset, shard: int) -> CaptionBlock:
        """The captions of a shard, with the pictures they belong to where these are guarded against."""
        block = caption_block(dataset, shard, self._plan.caption_digest8)
        vectors = stored_vectors(dataset, shard, self._plan.picture_digest8) if self._plan.guard_picture < 1 else None
        if vectors is None:
            return block
        places = {key: place for place, key in enumerate(dataset.index(shard).keys)}
        return replace(block, pictures=vectors[[places[key] for key in block.sources.tolist()]])


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


def negative_table(negatives: Sequence[Sequence[Negative]]) -> pa.Table:
    """Captions, scores and the keys of the pictures they belong to, best first."""
    import pyarrow as pa

    return pa.table(
        {
            "captions": pa.array([[each.text for each in row] for row in negatives], pa.list_(pa.string())),
            "scores": pa.array([[each.score for each in row] for row in negatives], pa.list_(pa.float32())),
            "sources": pa.array([[each.source for each in row] for row in negatives], pa.list_(pa.string())),
        }
    )
