"""Two-stage retrieval: cosine chooses the candidates of each query, the match head orders them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trainers.recall import FILLER


class PairMatcher(Protocol):
    """A family that can match states it has computed before."""

    def match_pairs(self, image_states: Tensor, text_states: Tensor, text_mask: Tensor) -> Tensor:
        """Give the (R,) class-1 logits of one image's states (1, P, Dv) with R texts (R, T, Dt)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """What both towers made of the gallery."""

    image_features: Tensor  # (images, D), unit norm
    text_features: Tensor  # (texts, D), unit norm
    image_states: Tensor  # (images, P, Dv)
    text_states: Tensor  # (texts, T, Dt)
    text_mask: Tensor  # (texts, T), true or 1 at tokens

    def similarity(self) -> Tensor:
        """Cosine of every picture with every text: (images, texts)."""
        return self.image_features @ self.text_features.T


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranked:
    """Scores of both directions: match logits where candidates were matched, `FILLER` plus cosine below them."""

    image_to_text: Tensor  # (images, texts)
    text_to_image: Tensor  # (texts, images)


def candidates(similarity: Tensor, k: int) -> Tensor:
    """Mark the `k` most similar columns of each row: (rows, columns) bool."""
    best = similarity.topk(min(k, similarity.shape[1]), dim=1).indices
    return torch.zeros_like(similarity, dtype=torch.bool).scatter_(1, best, True)


@torch.no_grad()
def rerank(
    matcher: PairMatcher,
    states: States,
    *,
    k: int,
    pairs_per_pass: int,
    on_image: Callable[[int], object] = lambda done: None,
) -> Reranked:
    """Match every candidate pair of either direction once.

    A pair's logit is the same in both directions, so the union of candidates is scored. One picture at a time: its keys and
    values are projected once for all its texts, which are sorted by length so that little padding is computed.

    Args:
        matcher: the family, in evaluation mode.
        states: what the towers made of the gallery.
        k: candidates per query (`k_test`).
        pairs_per_pass: texts that are matched with one picture at a time, at most.
        on_image: told how many pictures are done.
    """
    similarity = states.similarity()
    by_image = candidates(similarity, k)  # (images, texts)
    by_text = candidates(similarity.T, k)  # (texts, images)
    wanted = by_image | by_text.T
    lengths = states.text_mask.sum(dim=1)
    # Candidates that were not matched keep the published filler's place below all others, in the order of their cosine.
    logits = FILLER + similarity
    for image in range(len(wanted)):
        texts = wanted[image].nonzero().squeeze(1)
        texts = texts[lengths[texts].argsort(stable=True)]
        for chunk in torch.split(texts, pairs_per_pass):
            longest = int(lengths[chunk].max())
            logits[image, chunk] = matcher.match_pairs(
                states.image_states[image : image + 1],
                states.text_states[chunk, :longest],
                states.text_mask[chunk, :longest],
            ).to(logits.dtype)
        on_image(image + 1)
    below = FILLER + similarity
    return Reranked(
        image_to_text=torch.where(by_image, logits, below),
        text_to_image=torch.where(by_text, logits.T, below.T),
    )
