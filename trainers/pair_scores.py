"""Scores of every picture with every text, given for some queries at a time.

A table of floats per direction, and another for each step on the way to it, would outgrow what the models leave behind: of COCO's
5,000 by 25,000 test pairs each is 0.5 GB. Kept are the cosines, one such table, and a byte of marks per pair and direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from trainers.recall import FILLER, best_ranks
from trainers.rerank import Candidates, Direction

PAIRS_AT_A_TIME = 1 << 22


class PairScores(Protocol):
    """Scores of both directions."""

    def queries(self, direction: Direction) -> int:
        """How many ask."""
        ...

    def rows(self, direction: Direction, queries: range) -> Tensor:
        """Give the scores of all candidates for some queries: (n, candidates)."""
        ...


class Cosines:
    """Pairs score what they are alike."""

    def __init__(self, table: Tensor) -> None:
        """Args:
        table: (images, texts).
        """
        self.table = table

    def queries(self, direction: Direction) -> int:
        return self.table.shape[0 if direction == "image_to_text" else 1]

    def rows(self, direction: Direction, queries: range) -> Tensor:
        table = self.table if direction == "image_to_text" else self.table.T
        return table[queries.start : queries.stop]


class Reranked:
    """Candidates score what the match head says, and all others stay below them in the order of their cosine."""

    def __init__(self, cosines: Cosines, candidates: Candidates, scores: Tensor) -> None:
        """Args:
        cosines: of all pairs.
        candidates: of the directions that are asked for.
        scores: (pairs,) of the candidates' pairs.
        """
        self._cosines, self._candidates, self._scores = cosines, candidates, scores
        self.queries = cosines.queries
        # Candidates that were not matched keep the published filler's place below all others, in the order of their cosine;
        # a sharp temperature can take sums of logits below the published number itself.
        lowest = scores.min() if len(scores) else scores.new_zeros(())
        self._down = torch.clamp(lowest - 2, max=FILLER)

    def rows(self, direction: Direction, queries: range) -> Tensor:
        by_image, chosen = direction == "image_to_text", slice(queries.start, queries.stop)
        block = (chosen, slice(None)) if by_image else (slice(None), chosen)
        own = self._candidates.marks[direction][block]
        images, texts = (own.nonzero() + torch.tensor([queries.start, 0] if by_image else [0, queries.start])).T
        pairs = images * self.queries("text_to_image") + texts
        found = self._cosines.table[block] + self._down
        found[own] = self._scores[torch.searchsorted(self._candidates.pairs, pairs)]
        return found if by_image else found.T


def row_blocks(scores: PairScores, direction: Direction) -> Iterator[tuple[range, Tensor]]:
    """Go through all queries of a direction, some at a time: which, and their (n, candidates) scores."""
    queries = scores.queries(direction)
    candidates = scores.queries("text_to_image" if direction == "image_to_text" else "image_to_text")
    size = max(PAIRS_AT_A_TIME // max(candidates, 1), 1)
    for start in range(0, queries, size):
        chosen = range(start, min(start + size, queries))
        yield chosen, scores.rows(direction, chosen)


def truth_ranks(scores: PairScores, relevant: Tensor, direction: Direction) -> Tensor:
    """Find where the best relevant candidate of each query stands, as `best_ranks` does: (queries,) int64.

    Args:
        scores: of all pairs.
        relevant: (images, texts) bool.
        direction: who asks.

    Raises:
        ValueError: a query has no relevant candidate, or a score is not a number.
    """
    truth = relevant if direction == "image_to_text" else relevant.T
    return torch.cat(
        [best_ranks(rows, truth[chosen.start : chosen.stop]) for chosen, rows in row_blocks(scores, direction)]
    )
