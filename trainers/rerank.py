"""Two-stage retrieval: cosine chooses the candidates of each query, the match head orders them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from trainers.recall import FILLER

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
class States:
    """What both towers made of the gallery. Of pictures' states, a process may hold only those that it is to match."""

    image_features: Tensor  # (images, D), unit norm
    text_features: Tensor  # (texts, D), unit norm
    image_states: Tensor  # (images, P, Dv), or of the process's own pictures only
    text_states: Tensor  # (texts, T, Dt)
    text_mask: Tensor  # (texts, T), true or 1 at tokens

    def similarity(self) -> Tensor:
        """Cosine of every picture with every text: (images, texts)."""
        return self.image_features @ self.text_features.T


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranked:
    """Scores of both directions: of the matched candidates, and below them all others in the order of their cosine."""

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
    scoring: Scoring = "match",
    on_image: Callable[[int], object] = lambda done: None,
) -> Reranked:
    """Match every candidate pair of either direction once, in this process, and rank by it.

    Args:
        matcher: the family, in evaluation mode.
        states: what the towers made of the gallery.
        k: candidates per query (`k_test`).
        pairs_per_pass: texts that are matched with one picture at a time, at most.
        scoring: what a matched pair scores.
        on_image: told how many pictures are done.
    """
    images = range(len(states.image_features))
    scores = match_candidates(
        matcher, states, images, k=k, pairs_per_pass=pairs_per_pass, scoring=scoring, on_image=on_image
    )
    return reranked(states.similarity(), scores, k=k)


@torch.no_grad()
def match_candidates(
    matcher: PairMatcher,
    states: States,
    images: Sequence[int],
    *,
    k: int,
    pairs_per_pass: int,
    scoring: Scoring = "match",
    directions: Sequence[Direction] = DIRECTIONS,
    on_image: Callable[[int], object] = lambda done: None,
) -> Tensor:
    """Match some pictures with their candidates of either direction.

    A pair's score is the same in both directions, so the union of candidates is scored. One picture at a time: its keys and
    values are projected once for all its texts, which are sorted by length so that little padding is computed.

    Args:
        matcher: the family, in evaluation mode.
        states: what the towers made of the gallery; `image_states` of these pictures only, in their order.
        images: numbers of the pictures.
        k: candidates per query.
        pairs_per_pass: texts that are matched with one picture at a time, at most.
        scoring: what a matched pair scores.
        directions: whose candidates are matched; where only texts or only pictures ask, the others' candidates are not.
        on_image: told how many pictures are done.

    Returns:
        (len(images), texts): the scores, 0 where a pair is no candidate.
    """
    similarity = states.similarity()
    wanted = torch.zeros_like(similarity, dtype=torch.bool)  # (images, texts)
    if "image_to_text" in directions:
        wanted |= candidates(similarity, k)
    if "text_to_image" in directions:
        wanted |= candidates(similarity.T, k).T
    lengths = states.text_mask.sum(dim=1)
    scores = similarity.new_zeros(len(images), similarity.shape[1])
    for number, image in enumerate(images):
        texts = (
            wanted[image].nonzero().squeeze(1)
        )  # none, where only texts ask and this picture is near to none of them
        texts = texts[lengths[texts].argsort(stable=True)]
        for chunk in torch.split(texts, pairs_per_pass) if len(texts) else ():
            longest = int(lengths[chunk].max())
            pairs = (
                states.image_states[number : number + 1],
                states.text_states[chunk, :longest],
                states.text_mask[chunk, :longest],
            )
            found = (
                matcher.match_pairs(*pairs)
                if scoring == "match"
                else matcher.judge_pairs(*pairs, similarity[image, chunk])
            )
            scores[number, chunk] = found.to(scores.dtype)
        on_image(number + 1)
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
