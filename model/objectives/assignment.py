"""Text assignment: two pictures per caption, its own among them or not (ALBEF, Li et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softmax

from model.examples import UnfitError
from model.objectives.match import draw

FIRST, SECOND, NEITHER = range(3)


@dataclass(frozen=True, slots=True)
class Assignment:
    """Two pictures for each caption, and which of them it describes."""

    pictures: Tensor  # (B, 2) numbers in the batch
    labels: Tensor  # (B,) FIRST, SECOND or NEITHER
    weights: Tensor  # (B, B) row b: how likely caption b draws each picture, up to a factor


def draw_assignment(similarity: Tensor, *, same: Tensor, noise: Tensor, neither: float) -> Assignment:
    """Draw the two pictures of each caption; other pictures are the likelier the more similar they are to its own.

    Args:
        similarity: (B, B) picture to picture, over the temperature.
        same: (B, B) bool, true where two captions have the same picture; these are never drawn.
        noise: (B, 3) uniform in [0, 1): whether the own picture is shown, where (or the second other), the other one.
        neither: share of captions that are shown two other pictures.

    Returns:
        The pictures, the labels and what was drawn by.

    Raises:
        UnfitError: a batch of fewer than three pictures, of which no caption can be shown two others.
    """
    batch = len(same)
    if batch < 3:
        raise UnfitError(
            f"text assignment shows two other pictures of the batch, and this part of it has {batch}; give every process and "
            "micro-batch at least 3"
        )
    weights = softmax(similarity, dim=1).masked_fill(same, 0.0)
    own = torch.arange(batch, device=same.device)
    other = draw(weights, ~same, noise[:, 2])
    drawn = torch.zeros_like(same).scatter(1, other[:, None], True)
    another = draw(weights.masked_fill(drawn, 0.0), ~same & ~drawn, noise[:, 1])
    # Where all but one picture are the same as the own, there are no two others to show.
    none, first = (noise[:, 0] < neither) & ((~same).sum(1) > 1), noise[:, 1] < 0.5
    left = torch.where(none, other, torch.where(first, own, other))
    right = torch.where(none, another, torch.where(first, other, own))
    labels = torch.where(none, NEITHER, torch.where(first, FIRST, SECOND))
    return Assignment(pictures=torch.stack([left, right], dim=1), labels=labels, weights=weights)
