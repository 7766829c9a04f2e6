"""Recall at K for retrieval between pictures and texts, with any number of texts per picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CUTOFFS = (1, 5, 10)
FILLER = -100.0  # the published score of a candidate that was not re-ranked: below every match logit met in practice


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Percentages of queries whose truth is among the best K, both ways."""

    image_to_text: Mapping[int, float]
    text_to_image: Mapping[int, float]

    @property
    def image_to_text_mean(self) -> float:
        return sum(self.image_to_text.values()) / len(self.image_to_text)

    @property
    def text_to_image_mean(self) -> float:
        return sum(self.text_to_image.values()) / len(self.text_to_image)

    @property
    def mean(self) -> float:
        """The number by which the published recipes choose their best epoch."""
        return (self.image_to_text_mean + self.text_to_image_mean) / 2

    def as_metrics(self) -> dict[str, float]:
        """Name every number as scores.json does."""
        named = {f"image_to_text_r{cutoff}": value for cutoff, value in self.image_to_text.items()}
        named |= {"image_to_text_mean": self.image_to_text_mean}
        named |= {f"text_to_image_r{cutoff}": value for cutoff, value in self.text_to_image.items()}
        return named | {"text_to_image_mean": self.text_to_image_mean, "r_mean": self.mean}


def best_ranks(scores: Tensor, relevant: Tensor) -> Tensor:
    """Find where the best relevant candidate of each query stands; 0 is first.

    A tie counts against the query: the rank is the number of irrelevant candidates that score at least as high. So a
    constant score matrix earns nothing, whatever the order of a sort.

    Args:
        scores: (Q, C) float, higher is better.
        relevant: (Q, C) bool, at least one true per row.

    Returns:
        (Q,) int64.

    Raises:
        ValueError: a query has no relevant candidate, or a score is not a number.
    """
    if not bool(relevant.any(dim=1).all()):
        raise ValueError(f"query {int((~relevant.any(dim=1)).nonzero()[0])} has no relevant candidate")
    if bool(scores.isnan().any()):
        raise ValueError("the score matrix holds NaN: ranks would mean nothing; look at the checkpoint's losses")
    best = scores.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)  # (Q, 1)
    return ((scores >= best) & ~relevant).sum(dim=1)


def relevance(texts_of_image: Sequence[Sequence[int]], texts: int) -> Tensor:
    """Mark which texts belong to which image: (images, texts) bool."""
    relevant = torch.zeros(len(texts_of_image), texts, dtype=torch.bool)
    for image, own in enumerate(texts_of_image):
        relevant[image, list(own)] = True
    return relevant


def recall(image_to_text: Tensor, text_to_image: Tensor) -> Recall:
    """Score both directions.

    Args:
        image_to_text: (images,) best ranks of the pictures' texts.
        text_to_image: (texts,) best ranks of the texts' pictures.
    """
    return Recall(image_to_text=recall_at(image_to_text), text_to_image=recall_at(text_to_image))


def recall_at(ranks: Tensor, cutoffs: Sequence[int] = CUTOFFS) -> dict[int, float]:
    """Turn ranks (0 is first) into percentages of queries ranked below each cutoff."""
    return {cutoff: 100.0 * int((ranks < cutoff).sum()) / len(ranks) for cutoff in cutoffs}


def chance(relevant: Tensor) -> Recall:
    """Compute the recall that a random order earns in expectation.

    A query with r relevant among C candidates misses all of the first K with probability C(C−r, K) / C(C, K).
    """
    return Recall(image_to_text=_chance_at(relevant), text_to_image=_chance_at(relevant.T))


def _chance_at(relevant: Tensor) -> dict[int, float]:
    candidates = relevant.shape[1]
    # By parts, since a sum makes eight bytes of every mark.
    counts = torch.cat([rows.sum(dim=1) for rows in torch.split(relevant, 256)]).double()  # (Q,)
    missed = torch.ones_like(counts)
    result: dict[int, float] = {}
    for place in range(max(CUTOFFS)):
        if place < candidates:
            missed = missed * ((candidates - counts - place) / (candidates - place)).clamp(min=0)
        if place + 1 in CUTOFFS:
            result[place + 1] = 100.0 * float(1 - missed.mean())
    return result
