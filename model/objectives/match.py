"""Matching: does this text belong to this picture? With negatives drawn where contrast finds them hard (ALBEF, 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn.functional import cross_entropy, softmax

from model.config import Config


class MatchConfig(Config):
    """Image-text matching; the defaults are the published pretraining."""

    weight: NonNegativeFloat = 1.0


@dataclass(frozen=True, slots=True)
class Negatives:
    """For each text a picture that is not its own, and for each picture a text."""

    images: Tensor  # (B,) picture drawn for text b
    texts: Tensor  # (B,) text drawn for picture b
    image_weights: Tensor  # (B, B) row b: how likely text b draws each picture, up to a factor
    text_weights: Tensor  # (B, B) row b: how likely picture b draws each text, up to a factor
    usable: Tensor  # (B,) bool: false where the batch holds nothing but the same picture


def draw_negatives(image_similarity: Tensor, text_similarity: Tensor, *, same: Tensor, noise: Tensor) -> Negatives:
    """Draw one hard negative per text and per picture from the batch, the likelier the more similar.

    Args:
        image_similarity: (B, >= B) picture to text, over the temperature; the first B columns are the batch.
        text_similarity: (B, >= B) text to picture, likewise.
        same: (B, B) bool, true where two pairs show the same picture; these are never drawn.
        noise: (B, 2) uniform in [0, 1): for the picture and for the text to draw.

    Returns:
        The drawn indices and what they were drawn by.
    """
    batch = len(same)
    with torch.no_grad():
        # Released fine-tuning code adds 1e-4 to the similarities first; a softmax does not see a constant.
        image_weights = softmax(text_similarity[:, :batch].float(), dim=1).masked_fill(same, 0.0)
        text_weights = softmax(image_similarity[:, :batch].float(), dim=1).masked_fill(same, 0.0)
        return Negatives(
            images=draw(image_weights, ~same, noise[:, 0]),
            texts=draw(text_weights, ~same, noise[:, 1]),
            image_weights=image_weights,
            text_weights=text_weights,
            usable=~same.all(dim=1),
        )


def match_loss(logits: Tensor, usable: Tensor) -> Tensor:
    """Cross-entropy of the positives and their negatives.

    Args:
        logits: (3 B, 2): B pairs, B texts with a drawn picture, B pictures with a drawn text; column 1 says "match".
        usable: (B,) bool; the negatives of other rows do not count.

    Returns:
        Scalar: the mean over the rows that count.
    """
    batch = len(usable)
    labels = torch.zeros(3 * batch, dtype=torch.long, device=logits.device)
    labels[:batch] = 1
    counted = torch.cat([torch.ones_like(usable), usable, usable]).to(logits.dtype)
    return (cross_entropy(logits.float(), labels, reduction="none") * counted).sum() / counted.sum()


def draw(weights: Tensor, allowed: Tensor, noise: Tensor) -> Tensor:
    """Draw one column per row.

    Args:
        weights: (B, C) how likely each column is, up to a factor per row; zero where not allowed.
        allowed: (B, C) bool.
        noise: (B,) uniform in [0, 1).

    Returns:
        (B,) columns; without meaning in a row where none is allowed.
    """
    # Where the pair's own similarity took all of the softmax, nothing is left of the others: any of them will do.
    weights = torch.where(weights.sum(1, keepdim=True) > 0, weights, allowed.to(weights.dtype))
    cumulative = weights.cumsum(1)
    # Scaled by the last sum, noise below one stays below it; the clamp guards the row without any allowed column.
    drawn = torch.searchsorted(cumulative, (noise[:, None] * cumulative[:, -1:]), right=True)[:, 0]
    return drawn.clamp_(max=weights.shape[1] - 1)
