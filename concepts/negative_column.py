"""The column `negatives`: the hard captions of each picture, mined one shard at a time among those of the whole dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from concepts.annotate import EMBEDDING, embedding_digest8, stored_vectors
from concepts.caption_column import (
    CAPTION_EMBEDDING,
    CaptionBlock,
    Halves,
    caption_block,
    caption_digest8,
    captions_with_pictures,
)
from concepts.caption_index import CaptionIndex, IndexCard, build_index, find_index
from concepts.negative_search import Breadth, Rules, find_breadth, mine_nearby, read_breadth, write_breadth
from concepts.negatives import Negative, mine_negatives
from concepts.nouns import ShardUnit
from shards.config import digest
from shards.errors import DatasetError
from shards.reader import Dataset, open_dataset
from shards.sidecar import write_sidecar

if TYPE_CHECKING:
    import pyarrow as pa

NEGATIVES = "negatives"
SCHEMA = 2  # 1 took captions without any word


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativePlan:
    """What decides the bytes of the column `negatives`; small, and the same in every worker."""

    embedder: Mapping[str, Any]  # the embedder's card
    dataset: str  # digest: every picture's negatives come from all of it
    top_k: int
    guard_cosine: float
    guard_picture: float = 1.0
    index: IndexCard | None = None  # of an approximate search
    breadth: Breadth | None = None  # of it

    @property
    def rules(self) -> Rules:
        """What makes a caption a negative."""
        return Rules(top_k=self.top_k, guard_cosine=self.guard_cosine, guard_picture=self.guard_picture)

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
            # An exact search needs no word: its result does not depend on how it went.
            **({"search": {**asdict(self.index), **asdict(self.breadth)}} if self.index and self.breadth else {}),
        }


class NegativeMiner:
    """Finds the negatives of one shard among the captions of the whole dataset; needs embeddings, and no model."""

    def __init__(self, plan: NegativePlan) -> None:
        self._plan = plan
        self._index: CaptionIndex | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None}

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
        own = caption_block(dataset, unit.shard, plan.caption_digest8)
        if plan.index is not None and plan.breadth is not None:
            self._index = self._index or CaptionIndex(dataset, plan.index)
            negatives = mine_nearby(self._index, keys, vectors, own, rules=plan.rules, breadth=plan.breadth)
        else:
            negatives = mine_exactly(dataset, plan, keys, vectors, own)
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


def mine_exactly(
    dataset: Dataset, plan: NegativePlan, keys: Sequence[str], vectors: Halves, own: CaptionBlock
) -> list[list[Negative]]:
    """Find the hard captions of some pictures among all captions of the dataset, one shard of these in memory at a time.

    Args:
        dataset: of all captions.
        plan: which embeddings, and what is allowed.
        keys: N pictures.
        vectors: (N, D), theirs.
        own: their captions.
    """
    blocks = (
        caption_block(dataset, shard, plan.caption_digest8)
        if plan.guard_picture >= 1
        else captions_with_pictures(dataset, shard, captions=plan.caption_digest8, pictures=plan.picture_digest8)
        for shard in range(len(dataset.manifest))
    )
    return mine_negatives(keys, vectors, own, blocks, **asdict(plan.rules))


def with_search(dataset: Dataset, plan: NegativePlan, *, recall: float, sample: int) -> NegativePlan:
    """Prepare an approximate search: make the index where it is missing, and measure how far to look.

    Args:
        dataset: whose pictures and captions are embedded.
        plan: of an exact search.
        recall: share of the exact negatives that is enough.
        sample: pictures over which that is measured, spread evenly over the dataset.

    Returns:
        The plan with its index and breadth; what was measured for it before is read and not measured again.
    """
    storage, named = dataset.storage, {"captions": plan.caption_digest8, "pictures": plan.picture_digest8}
    card = find_index(storage, dataset=dataset.digest, **named) or build_index(dataset, **named)
    asked = digest({"rules": asdict(plan.rules), "recall": recall, "sample": sample})[:8]
    name = f"{card.folder}/breadth-{asked}.json"
    breadth = read_breadth(storage, name)
    if breadth is None:
        keys, vectors, own = _sampled(dataset, plan, sample)
        exact = mine_exactly(dataset, plan, keys, vectors, own)
        index = CaptionIndex(dataset, card)
        breadth = find_breadth(index, keys, vectors, own, exact, rules=plan.rules, wanted=recall)
        write_breadth(storage, name, breadth)
    return replace(plan, index=card, breadth=breadth)


def _sampled(dataset: Dataset, plan: NegativePlan, count: int) -> tuple[list[str], Halves, CaptionBlock]:
    """Pictures spread evenly over a dataset: keys, (N, D) embeddings, and their captions."""
    step = max(1, len(dataset) // count)
    keys: list[str] = []
    vectors: list[Halves] = []
    texts: list[str] = []
    own: list[CaptionBlock] = []
    first = 0
    for shard in range(len(dataset.manifest)):
        here = dataset.index(shard).keys
        rows = range(-first % step, len(here), step)
        first += len(here)
        stored = stored_vectors(dataset, shard, plan.picture_digest8) if rows else None
        if stored is None:
            continue
        block = caption_block(dataset, shard, plan.caption_digest8)
        chosen = [here[row] for row in rows]
        mine = np.flatnonzero(np.isin(block.sources, np.asarray(chosen, np.object_)))
        keys += chosen
        vectors.append(stored[list(rows)])
        texts += [block.texts[place] for place in mine.tolist()]
        own.append(CaptionBlock(texts=(), sources=block.sources[mine], vectors=block.vectors[mine]))
    captions = CaptionBlock(
        texts=texts,
        sources=np.concatenate([block.sources for block in own]),
        vectors=np.concatenate([block.vectors for block in own]),
    )
    return keys, np.concatenate(vectors), captions


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
