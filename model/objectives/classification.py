"""Cross-entropy over classes, softened by what a momentum twin says (ALBEF, Li et al., 2021)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, softmax


def softened_cross_entropy(logits: Tensor, labels: Tensor, twin_logits: Tensor | None, *, soften: float) -> Tensor:
    """Learn classes from labels and, in part, from the twin's prediction.

    Args:
        logits: (B, C).
        labels: (B,) class numbers.
        twin_logits: (B, C) without gradient; may be `None` where `soften` is 0.
        soften: share of the twin's prediction in the targets, 0 to 1.

    Returns:
        (B,): one loss per row.
    """
    logits = logits.float()
    hard = cross_entropy(logits, labels, reduction="none")
    if twin_logits is None:
        return hard
    soft = -(log_softmax(logits, dim=1) * softmax(twin_logits.float(), dim=1)).sum(1)
    return torch.lerp(hard, soft, soften)
