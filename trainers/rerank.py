"""Two-stage retrieval: cosine chooses the candidates of each query, the match head orders them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from trainers.recall import FILLER
from trainers.states import PackedTexts

# `match`: the raw class-1 logit alone, as ALBEF and ViCHA publish their scores. `match_and_contrast`: the log-odds of a match
# plus the contrast's own logit, two experts of one pair; BLIP (Li et al., 2022) adds its similarity likewise.
Scoring = Literal["match", "match_and_contrast"]

Direction = Literal["text_to_image", "image_to_text"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


@runtime_checkable
class PairMatcher(Protocol):
    """A family that can match states it has computed before."""

    def match_pairs(self, image_states: Tensor, text_states: Tensor, text_mask: Tensor) -> Tensor:
        """Give the (R,) class-1 logits of one image's states (1, P, Dv) with R texts (R, T, Dt)."""
        ...

    def judge_pairs(self, image_states: Tensor, text_states: Tensor, text_mask: Tensor, similarity: Tensor) -> Tensor:
        """Give the (R,) sums of match log-odds and contrast logit, from the same states and the pairs' (R,) cosines."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranked:
    """Scores of both directions: of the matched candidates, and below them all others in the order of their cosine."""

    image_to_text: Tensor  # (images, texts)
    text_to_image: Tensor  # (texts, images)


def candidates(similarity: Tensor, k: int) -> Tensor:
    """Mark the `k` most similar columns of each row: (rows, columns) bool."""
    best = similarity.topk(min(k, similarity.shape[1]), dim=1).indices
    return torch.zeros_like(similarity, dtype=torch.bool).scatter_(1, best, True)


def wanted_pairs(similarity: Tensor, k: int, directions: Sequence[Direction] = DIRECTIONS) -> Tensor:
    """Mark the candidates of either direction: (images, texts) bool.

    A pair scores the same in both directions, so it is matched once. Where only texts or only pictures ask, the others'
    candidates are left out.
    """
    wanted = torch.zeros_like(similarity, dtype=torch.bool)
    if "image_to_text" in directions:
        wanted |= candidates(similarity, k)
    if "text_to_image" in directions:
        wanted |= candidates(similarity.T, k).T
    return wanted


@torch.no_grad()
def match_picture(
    matcher: PairMatcher,
    image_states: Tensor,
    texts: Tensor,
    states: PackedTexts,
    similarity: Tensor,
    *,
    pairs_per_pass: int,
    scoring: Scoring = "match",
) -> Tensor:
    """Match one picture with its candidates.

    Its keys and values are projected once for all its texts, which are sorted by length so that little padding is computed.

    Args:
        matcher: the family, in evaluation mode.
        image_states: (1, P, Dv).
        texts: (R,) numbers of the texts.
        states: of all texts that are anybody's candidates.
        similarity: (texts,) cosines of the picture with the whole gallery.
        pairs_per_pass: texts that are matched at a time, at most.
        scoring: what a matched pair scores.

    Returns:
        (R,) scores.
    """
    order = states.lengths[texts].argsort(stable=True)
    scores = similarity.new_zeros(len(texts))
    for part in torch.split(order, pairs_per_pass):
        pairs = (image_states, *states.padded(texts[part]))
        found = (
            matcher.match_pairs(*pairs) if scoring == "match" else matcher.judge_pairs(*pairs, similarity[texts[part]])
        )
        scores[part] = found.to(scores.dtype)
    return scores


def reranked(similarity: Tensor, scores: Tensor, *, k: int) -> Reranked:
    """Rank by the scores of the candidates, and below them by cosine.

    Args:
        similarity: (images, texts) cosines.
        scores: (images, texts) of the matched pairs.
        k: candidates per query, as when they were matched.
    """
    by_image = candidates(similarity, k)  # (images, texts)
    by_text = candidates(similarity.T, k)  # (texts, images)
    wanted = by_image | by_text.T
    # Candidates that were not matched keep the published filler's place below all others, in the order of their cosine;
    # a sharp temperature can take sums of logits below the published number itself.
    lowest = scores[wanted].min() if bool(wanted.any()) else scores.new_zeros(())
    below = similarity + torch.clamp(lowest - 2, max=FILLER)
    return Reranked(
        image_to_text=torch.where(by_image, scores, below),
        text_to_image=torch.where(by_text, scores.T, below.T),
    )
