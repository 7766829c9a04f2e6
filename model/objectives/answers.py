"""Answers in words: the loss of a text under a decoder, with soft targets, and the ranking of given answers (ALBEF, VQA)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.objectives.classification import softened_cross_entropy


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTexts:
    """A answers as tokens, and which of their positions predict a real one."""

    ids: Tensor  # (A, T): class token, answer, [SEP], padding
    mask: Tensor  # (A, T) bool
    positions: Tensor  # (M,) flat in A * T, ascending
    targets: Tensor  # (M,) the tokens that follow there

    def owners(self) -> Tensor:
        """(M,) which answer each position belongs to."""
        return self.positions // self.ids.shape[1]


def answer_texts(ids: Tensor, mask: Tensor) -> AnswerTexts:
    """Find the positions of (A, T) answers that a real token follows."""
    mask = mask.bool()
    followed = torch.zeros_like(mask)
    followed[:, :-1] = mask[:, 1:]
    positions = followed.flatten().nonzero().squeeze(1)
    return AnswerTexts(ids=ids, mask=mask, positions=positions, targets=ids.flatten()[positions + 1])


def answer_losses(logits: Tensor, texts: AnswerTexts, twin_logits: Tensor | None, *, soften: float) -> Tensor:
    """Sum each answer's loss over its tokens.

    Args:
        logits: (M, V) at the positions that a real token follows.
        texts: the answers.
        twin_logits: (M, V) without gradient; may be `None` where `soften` is 0.
        soften: share of the twin's prediction in the targets, 0 to 1.

    Returns:
        (A,).
    """
    tokens = softened_cross_entropy(logits, texts.targets, twin_logits, soften=soften)
    return tokens.new_zeros(len(texts.ids)).index_add(0, texts.owners(), tokens)
