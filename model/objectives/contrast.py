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
    queued_texts, queued_images = all_columns(queue.texts), all_columns(queue.images)
    with torch.no_grad():
        image_similarity = _similarity(images, twin_texts, queued_texts, temperature)
        text_similarity = _similarity(texts, twin_images, queued_images, temperature)
        image_targets = text_targets = hard_targets(image_similarity, queue, identity)
        if soften > 0:
            image_soft = softmax(_similarity(twin_images, twin_texts, queued_texts, temperature), dim=1)
            text_soft = softmax(_similarity(twin_texts, twin_images, queued_images, temperature), dim=1)
            image_targets, text_targets = image_targets.lerp(image_soft, soften), text_targets.lerp(text_soft, soften)
    image_loss = _soft_cross_entropy(
        images, image_similarity, image_targets, fresh=twin_texts, queued=queued_texts, temperature=temperature
    )
    text_loss = _soft_cross_entropy(
        texts, text_similarity, text_targets, fresh=twin_images, queued=queued_images, temperature=temperature
    )
    return Contrast(
        loss=(image_loss + text_loss) / 2,
        image_loss=image_loss,
        text_loss=text_loss,
        image_similarity=image_similarity,
        text_similarity=text_similarity,
        image_targets=image_targets,
        text_targets=text_targets,
    )


def _similarity(rows: Tensor, fresh: Tensor, queued: Tensor, temperature: Tensor) -> Tensor:
    """(B, D) rows to (B, C) similarities with B fresh rows and Q queued columns, which are not copied together."""
    # Single precision under autocast too: a temperature of 0.01 makes a hundred of a small rounding.
    return torch.cat([rows @ fresh.t(), rows @ queued], dim=1).float() / temperature


def _soft_cross_entropy(
    rows: Tensor, similarity: Tensor, targets: Tensor, *, fresh: Tensor, queued: Tensor, temperature: Tensor
) -> Tensor:
    """Score (B, C) similarities with soft targets, their gradient computed on the spot.

    So nothing of the size of the queue is kept for the backward pass, and the queue may move on before it.

    Args:
        rows: (B, D), which learn.
        similarity: (B, C) of the rows with the candidates, over the temperature, without gradient.
        targets: (B, C), rows that sum to one.
        fresh: (B, D) rows, the first candidates.
        queued: (D, Q) columns, the others.
        temperature: scalar, which learns.
    """
    with torch.no_grad():
        log_shares = log_softmax(similarity, dim=1)
        loss = -(log_shares * targets).sum(1).mean()
        change = (log_shares.exp_() - targets) / len(rows)  # of the loss with each similarity
        of_rows = (change[:, : len(fresh)] @ fresh + change[:, len(fresh) :] @ queued.t()) / temperature
        of_temperature = -(change * similarity).sum() / temperature
    # A term of value zero that has these gradients.
    lever = (rows * of_rows).sum() + temperature * of_temperature
    return loss + (lever - lever.detach())


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
