"""Hard captions by way of an index, and how much of the exact result is found so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from concepts.caption_column import CaptionBlock, Halves
from concepts.caption_index import CaptionIndex
from concepts.negatives import ROWS, Negative, cleaned, mine_negatives
from shards.config import canonical_json
from shards.errors import DatasetError
from shards.storage import Storage

FIRST_PROBES = 8
FIRST_CANDIDATES = 8  # per negative that is wanted
WIDEST_CANDIDATES = 64  # the same, at most

Found = Sequence[Sequence[Negative]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Breadth:
    """How far a search by an index looks.

    Attributes:
        probes: cells that are looked into.
        candidates: captions per picture that are then compared exactly.
        recall: share of the exact negatives of a sample of pictures that are found so.
        sampled: how many pictures that sample holds.
    """

    probes: int
    candidates: int
    recall: float = 0.0
    sampled: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What makes a caption a negative; see `mine_negatives`."""

    top_k: int
    guard_cosine: float
    guard_picture: float


def mine_nearby(
    index: CaptionIndex, keys: Sequence[str], vectors: Halves, own: CaptionBlock, *, rules: Rules, breadth: Breadth
) -> list[list[Negative]]:
    """Find the hard captions of each picture among what the index finds near any picture of a part.

    Args:
        index: of all captions.
        keys: N pictures.
        vectors: (N, D) float16 embeddings of the pictures.
        own: the captions of these pictures.
        rules: which are allowed.
        breadth: how far to look.

    Returns:
        As `mine_negatives`, of which all scores and guards are: only candidates may be missing.
    """
    negatives: list[list[Negative]] = []
    for start in range(0, len(keys), ROWS):
        rows = slice(start, start + ROWS)
        places = index.nearest(vectors[rows], count=breadth.candidates, probes=breadth.probes)
        near = index.block(np.unique(places[places >= 0]))
        mine = np.isin(own.sources, np.asarray(keys[rows], np.object_))
        negatives += mine_negatives(
            keys[rows],
            vectors[rows],
            CaptionBlock(
                texts=[text for text, is_mine in zip(own.texts, mine.tolist(), strict=True) if is_mine],
                sources=own.sources[mine],
                vectors=own.vectors[mine],
            ),
            [near],
            **asdict(rules),
        )
    return negatives


def recall_of(found: Found, exact: Found) -> float:
    """The share of the exact negatives that are found; a wording counts, whichever caption has it. 1 where there are none."""
    wanted = [{cleaned(each.text) for each in row} for row in exact]
    right = sum(len(one & {cleaned(each.text) for each in other}) for one, other in zip(wanted, found, strict=True))
    total = sum(map(len, wanted))
    return right / total if total else 1.0


def find_breadth(
    index: CaptionIndex,
    keys: Sequence[str],
    vectors: Halves,
    own: CaptionBlock,
    exact: Found,
    *,
    rules: Rules,
    wanted: float,
) -> Breadth:
    """Look farther, twice as far each time, until so much of the exact result is found, or all cells are looked into.

    Args:
        index: of all captions.
        keys: the pictures of a sample.
        vectors: (N, D), theirs.
        own: their captions.
        exact: their negatives by the exact search.
        rules: the same for both.
        wanted: recall from which it is enough.
    """
    breadth = Breadth(probes=FIRST_PROBES, candidates=FIRST_CANDIDATES * rules.top_k, sampled=len(keys))
    while True:
        found = mine_nearby(index, keys, vectors, own, rules=rules, breadth=breadth)
        breadth = replace(breadth, recall=round(recall_of(found, exact), 4))
        widest = breadth.probes >= index.card.cells and breadth.candidates >= WIDEST_CANDIDATES * rules.top_k
        if breadth.recall >= wanted or widest:
            return breadth
        breadth = replace(
            breadth,
            probes=min(2 * breadth.probes, max(index.card.cells, FIRST_PROBES)),
            candidates=min(2 * breadth.candidates, WIDEST_CANDIDATES * rules.top_k),
        )


def write_breadth(storage: Storage, name: str, breadth: Breadth) -> None:
    """Keep what was measured, so that a run that goes on, or another worker, looks as far. The first writer wins."""
    storage.create(name, canonical_json(asdict(breadth)))


def read_breadth(storage: Storage, name: str) -> Breadth | None:
    """Read it again; None where nothing was measured."""
    try:
        return Breadth(**json.loads(storage.read(name)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as problem:
        raise DatasetError(
            f"{storage.path(name)} is damaged ({problem}); remove it and run `negatives` again"
        ) from problem
