"""Alignment of picture and text at several depths of the two encoders (ViCHA, Shukor et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from model.config import Config
from model.feature_queue import gather_rows, gather_rows_with_gradient, process_rank


class HierarchyConfig(Config):
    """Hierarchical alignment; the defaults are the published pretraining."""

    weight: NonNegativeFloat = 0.1
    layers: PositiveInt = 5  # how many, counted down from the last but one; the last belongs to the main contrast
    layer_weights: tuple[NonNegativeFloat, ...] | None = None  # bottom to top; `None` weighs all with 1
    # Fixed, as published: in each direction only the asking side learns. Learning: the candidates do, too, those of other
    # processes included.
    candidates: Literal["fixed", "learning"] = "fixed"
    # The released code takes column i as the right one for row i on every process, which is right on the first only.
    rank_targets: Literal["own", "first"] = "own"

    @model_validator(mode="after")
    def _one_weight_per_layer(self) -> HierarchyConfig:
        if self.layer_weights is not None and len(self.layer_weights) != self.layers:
            raise ValueError(f"layer_weights holds {len(self.layer_weights)} weights for {self.layers} layers")
        return self


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The weighted sum over layers, each layer's loss, and the unit features (B, D) they compare."""

    loss: Tensor
    layer_losses: tuple[Tensor, ...]
    images: tuple[Tensor, ...]
    texts: tuple[Tensor, ...]


class HierarchicalAlignment(nn.Module):
    """Contrast image and text at several depths of the two encoders, not only at the top."""

    def __init__(self, config: HierarchyConfig, *, image_width: int, text_width: int, projection: int) -> None:
        super().__init__()
        self.config = config
        self.image_projections = nn.ModuleList(nn.Linear(image_width, projection) for _ in range(config.layers))
        self.text_projections = nn.ModuleList(nn.Linear(text_width, projection) for _ in range(config.layers))

    def forward(self, images: Sequence[Tensor], texts: Sequence[Tensor], *, temperature: Tensor) -> Hierarchy:
        """Compare the class tokens of the aligned layers.

        Args:
            images: one (B, Dv) tensor of class tokens per aligned layer, bottom to top.
            texts: one (B, Dt) tensor per aligned layer, same order and count.
            temperature: scalar; shared with the top-level contrast.

        Returns:
            The weighted sum over layers of the symmetric cross-entropy, and its parts.

        Raises:
            ValueError: the number of layers differs from the configured one.
        """
        if not len(images) == len(texts) == self.config.layers:
            raise ValueError(
                f"{len(images)} picture layers and {len(texts)} text layers given where {self.config.layers} are aligned"
            )
        seen = tuple(normalize(p(x), dim=1) for p, x in zip(self.image_projections, images, strict=True))
        read = tuple(normalize(p(x), dim=1) for p, x in zip(self.text_projections, texts, strict=True))
        batch = len(images[0])
        offset = process_rank() * batch if self.config.rank_targets == "own" else 0
        right = torch.arange(batch, device=images[0].device) + offset
        gather = gather_rows if self.config.candidates == "fixed" else gather_rows_with_gradient
        losses = tuple(
            (
                cross_entropy((image @ gather(text).t()).float() / temperature, right)
                + cross_entropy((text @ gather(image).t()).float() / temperature, right)
            )
            / 2
            for image, text in zip(seen, read, strict=True)
        )
        weights = self.config.layer_weights or (1.0,) * len(losses)
        total = torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum()
        return Hierarchy(loss=total, layer_losses=losses, images=seen, texts=read)
