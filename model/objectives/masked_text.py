"""Masked language modelling conditioned on the picture, with soft targets from the momentum twin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field, NonNegativeFloat, model_validator
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, softmax

from model.config import Config


class MaskedTextConfig(Config):
    """Masked words; the defaults are BERT's and the published pretraining's."""

    weight: NonNegativeFloat = 1.0
    probability: float = Field(default=0.15, gt=0, le=1)  # share of tokens to predict; never the class token or padding
    mask_share: float = Field(default=0.8, ge=0, le=1)  # of these: shown as [MASK]
    random_share: float = Field(
        default=0.1, ge=0, le=1
    )  # of these: shown as any word of the vocabulary; the rest unchanged

    @model_validator(mode="after")
    def _shares_fit(self) -> MaskedTextConfig:
        if self.mask_share + self.random_share > 1:
            raise ValueError(f"mask_share {self.mask_share} and random_share {self.random_share} add up to more than 1")
        return self


@dataclass(frozen=True, slots=True)
class MaskedText:
    """The loss and its parts, over the M labelled positions only."""

    loss: Tensor
    hard: Tensor
    soft: Tensor | None  # `None` where the twin was not asked
    logits: Tensor  # (M, V)
    twin_logits: Tensor | None  # (M, V)


def masked_text(logits: Tensor, targets: Tensor, twin_logits: Tensor | None, *, soften: float) -> MaskedText:
    """Predict the hidden words.

    Args:
        logits: (M, V) at the labelled positions.
        targets: (M,) true word ids.
        twin_logits: (M, V) of the momentum twin at the same positions; may be `None` where `soften` is 0.
        soften: share of the twin's prediction in the targets, 0 to 1.

    Returns:
        The mean over labelled positions; exactly zero, with a zero gradient, where nothing is labelled (the released
        code returns NaN there).
    """
    count = max(len(targets), 1)
    logits = logits.float()
    hard = cross_entropy(logits, targets, reduction="sum") / count
    if twin_logits is None:
        return MaskedText(loss=hard, hard=hard, soft=None, logits=logits, twin_logits=None)
    soft = -(log_softmax(logits, dim=1) * softmax(twin_logits.float(), dim=1)).sum() / count
    return MaskedText(loss=torch.lerp(hard, soft, soften), hard=hard, soft=soft, logits=logits, twin_logits=twin_logits)
