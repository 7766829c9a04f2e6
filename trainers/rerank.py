"""Two-stage retrieval: cosine chooses the candidates of each query, the match head orders them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from trainers.states import PackedTexts

# `match`: the raw class-1 logit alone, as ALBEF and ViCHA publish their scores. `match_and_contrast`: the log-odds of a match
# plus the contrast's own logit, two experts of one pair; BLIP (Li et al., 2022) adds its similarity likewise.
Scoring = Literal["match", "match_and_contrast"]

Direction = Literal["text_to_image", "image_to_text"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

ROWS_AT_A_TIME = 256


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
class Candidates:
    """Which pairs are matched. A pair scores the same in both directions, so it is matched once."""

    marks: Mapping[Direction, Tensor]  # (images, texts) bool
    pairs: Tensor  # (pairs,) those of any direction as image * texts + text, ascending

    def cpu(self) -> Candidates:
        """The same, on the CPU."""
        return Candidates(
            marks={direction: marks.cpu() for direction, marks in self.marks.items()}, pairs=self.pairs.cpu()
        )


def candidates(similarity: Tensor, k: int) -> Tensor:
    """Mark the `k` most similar columns of each row: (rows, columns) bool."""
    marks = torch.zeros_like(similarity, dtype=torch.bool)
    for start in range(0, len(similarity), ROWS_AT_A_TIME):
        rows, own = (table[start : start + ROWS_AT_A_TIME] for table in (similarity, marks))
        own.scatter_(1, rows.topk(min(k, rows.shape[1]), dim=1).indices, True)
    return marks


def candidate_pairs(similarity: Tensor, k: int, directions: Sequence[Direction]) -> Candidates:
    """Choose the candidates of each direction by cosine.

    Args:
        similarity: (images, texts).
        k: candidates per query (`k_test`).
        directions: where only texts or only pictures ask, the others' candidates are left out.
    """
    marks: dict[Direction, Tensor] = {}
    if "image_to_text" in directions:
        marks["image_to_text"] = candidates(similarity, k)
    if "text_to_image" in directions:
        marks["text_to_image"] = candidates(similarity.T, k).T
    return Candidates(marks=marks, pairs=reduce(torch.logical_or, marks.values()).flatten().nonzero().squeeze(1))


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
