"""Contrast of pictures and texts with queues and soft targets from the momentum twin (ALBEF, Li et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor
from torch.nn.functional import log_softmax, softmax

from model.config import Config
from model.feature_queue import FeatureQueue, all_columns


class ContrastConfig(Config):
    """Image-text contrast; the defaults are the published pretraining."""

    weight: NonNegativeFloat = 1.0
    temperature: PositiveFloat = 0.07  # where the learned temperature starts
    temperature_range: tuple[PositiveFloat, PositiveFloat] | None = (0.001, 0.5)  # clamped so before each training step
    momentum: float = Field(default=0.995, ge=0, le=1)
    queue_size: NonNegativeInt = 65536  # 0: contrast inside the batch only
    alpha: float = Field(default=0.4, ge=0, le=1)  # share of the twin's soft targets (here and in masked text)
    ramp: Literal["first_epoch", "none"] = "first_epoch"  # alpha rises from 0 during the first epoch
    distil: bool = True  # False: hard targets only, whatever alpha
    targets: Literal["pair", "identity"] = "pair"  # identity: all texts of a picture are right, shared equally


@dataclass(frozen=True, slots=True)
class Contrast:
    """The loss and all it was made of. C = B + Q candidates: the batch's momentum features, then the queue."""

    loss: Tensor
    image_loss: Tensor  # picture to text
    text_loss: Tensor  # text to picture
    image_similarity: Tensor  # (B, C) picture to text candidates, over the temperature
    text_similarity: Tensor  # (B, C)
    image_targets: Tensor  # (B, C)
    text_targets: Tensor  # (B, C)


def contrast(
    *,
    images: Tensor,
    texts: Tensor,
    twin_images: Tensor,
    twin_texts: Tensor,
    queue: FeatureQueue,
    temperature: Tensor,
    soften: float,
    identity: Tensor | None = None,
) -> Contrast:
    """Tell each picture's text from all others of batch and queue, and the reverse.

    Args:
        images: (B, D) unit rows, with gradient.
        texts: (B, D) unit rows, with gradient.
        twin_images: (B, D) unit rows of the momentum twin, without gradient.
        twin_texts: (B, D) likewise.
        queue: earlier momentum features.
        temperature: scalar.
        soften: share of the twin's own similarities in the targets, 0 to 1.
        identity: (B,) picture numbers, negative where a pair is its own; `None` makes every pair its own.

    Returns:
        The loss (both directions averaged) and its parts.
    """
    text_candidates = torch.cat([twin_texts.t(), all_columns(queue.texts)], dim=1)  # (D, C)
    image_candidates = torch.cat([twin_images.t(), all_columns(queue.images)], dim=1)  # (D, C)
    # Single precision under autocast too: a temperature of 0.01 makes a hundred of a small rounding.
    image_similarity = (images @ text_candidates).float() / temperature
    text_similarity = (texts @ image_candidates).float() / temperature
    with torch.no_grad():
        right = hard_targets(image_similarity, queue, identity)
        image_targets = text_targets = right
        if soften > 0:
            image_targets = right.lerp(softmax((twin_images @ text_candidates).float() / temperature, dim=1), soften)
            text_targets = right.lerp(softmax((twin_texts @ image_candidates).float() / temperature, dim=1), soften)
    image_loss = -(log_softmax(image_similarity, dim=1) * image_targets).sum(1).mean()
    text_loss = -(log_softmax(text_similarity, dim=1) * text_targets).sum(1).mean()
    return Contrast(
        loss=(image_loss + text_loss) / 2,
        image_loss=image_loss,
        text_loss=text_loss,
        image_similarity=image_similarity,
        text_similarity=text_similarity,
        image_targets=image_targets,
        text_targets=text_targets,
    )


def hard_targets(similarity: Tensor, queue: FeatureQueue, identity: Tensor | None) -> Tensor:
    """Rows over the (B, C) candidates that sum to one and are positive exactly at candidates of the same picture."""
    batch = len(similarity)
    if identity is None:
        return torch.eye(batch, similarity.shape[1], device=similarity.device, dtype=similarity.dtype)
    same = same_picture(identity)
    if queue.with_identities:
        queued = (identity[:, None] == all_columns(queue.identities)) & (identity >= 0)[:, None]
    else:
        queued = same.new_zeros(batch, similarity.shape[1] - batch)
    right = torch.cat([same, queued], dim=1).to(similarity.dtype)
    return right / right.sum(1, keepdim=True)


def same_picture(identity: Tensor) -> Tensor:
    """(B,) picture numbers to the (B, B) table of which pairs show the same; a negative number equals only itself."""
    own = torch.eye(len(identity), dtype=torch.bool, device=identity.device)
    return own | ((identity[:, None] == identity[None]) & (identity >= 0)[:, None])
