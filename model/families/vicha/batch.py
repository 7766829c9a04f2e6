"""What a ViCHA step eats: pictures, texts and concepts of B pairs, with every random choice already made."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class PairBatch:
    """B pairs. Whatever a step draws at random stands here, so that a batch says all about its step but dropout."""

    keys: tuple[str, ...]
    pixels: Tensor | None  # (B, 3, H, W) uint8, normalised in the model; floats pass as already normalised
    text_ids: Tensor  # (B, T)
    text_mask: Tensor  # (B, T) bool
    identity: Tensor  # (B,) which picture; negative where every pair is its own
    concept_ids: Tensor | None = None  # (B, K)
    concept_mask: Tensor | None = None  # (B, K) bool
    masked_ids: Tensor | None = None  # (B, T) texts with hidden words
    masked_positions: Tensor | None = None  # (M,) labelled positions, flat in B * T, ascending
    masked_targets: Tensor | None = None  # (M,) the words there
    patch_noise: Tensor | None = None  # (B, P) uniform; the smallest stay visible
    match_noise: Tensor | None = None  # (B, 2) uniform: draws a text's picture and a picture's text
    image_negatives: Tensor | None = None  # (B,) the picture for each text, instead of a draw
    text_negatives: Tensor | None = None  # (B,) the text for each picture, instead of a draw

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Move all tensors together."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Pin all tensors, for transfers that do not block."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: object) -> Self:
        assert callable(change)
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(value) for name, value in tensors.items() if isinstance(value, Tensor)})
