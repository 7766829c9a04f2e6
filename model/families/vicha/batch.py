"""What a ViCHA step eats: pictures, texts and concepts, with every random choice already made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """Tensors that move together; other fields stay."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Move all tensors together."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Pin all tensors, for transfers that do not block."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        changed: dict[str, object] = {}
        for name in (each.name for each in fields(self)):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                changed[name] = change(value)
        return replace(self, **changed)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairBatch(Tensors):
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
    wrong_ids: Tensor | None = None  # (B, T) texts made to be wrong for their picture, as long as `text_ids`
    wrong_mask: Tensor | None = None  # (B, T) bool
    is_wrong: Tensor | None = None  # (B,) bool: there is such a text, and it takes the place of the one drawn
    assign_noise: Tensor | None = None  # (B, 3) uniform: whether a text sees its own picture, and which others
    assigned: Tensor | None = None  # (B, 2) the two pictures of each text, instead of a draw
    assigned_labels: Tensor | None = None  # (B,) 0: the first is its own, 1: the second, 2: neither

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """B pictures and their concepts, as one pass of a picture tower sees them."""

    pixels: Tensor  # (B, 3, H, W)
    concept_ids: Tensor | None = None  # (B, K)
    concept_mask: Tensor | None = None  # (B, K) bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskBatch(Tensors):
    """B texts about pictures: what the batches of all fine-tuned models hold."""

    keys: tuple[str, ...]
    pixels: Tensor  # (B, 3, H, W), or (B, 2, 3, H, W) where texts are about two pictures; as in `PairBatch`
    text_ids: Tensor  # (B, T)
    text_mask: Tensor  # (B, T) bool
    concept_ids: Tensor | None = None  # (B, K)
    concept_mask: Tensor | None = None  # (B, K) bool

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def pictures(self) -> Pictures:
        """Each text's only or first picture."""
        pixels = self.pixels if self.pixels.ndim == 4 else self.pixels[:, 0]
        return Pictures(pixels=pixels, concept_ids=self.concept_ids, concept_mask=self.concept_mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassesBatch(TaskBatch):
    """Texts about a picture each, and the class of each."""

    labels: Tensor | None = None  # (B,); `None` where nobody knows them
    weights: Tensor | None = None  # (B,) of the examples' losses; `None`: 1 each


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareBatch(ClassesBatch):
    """Sentences about two pictures each; label 1 is true."""

    second_concept_ids: Tensor | None = None  # (B, K') of the second pictures, padded on their own
    second_concept_mask: Tensor | None = None  # (B, K') bool

    @property
    def second_pictures(self) -> Pictures:
        """Each sentence's second picture."""
        return Pictures(
            pixels=self.pixels[:, 1], concept_ids=self.second_concept_ids, concept_mask=self.second_concept_mask
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersBatch(TaskBatch):
    """Questions about a picture each, and A answers to learn, those of a question in consecutive rows."""

    answer_ids: Tensor | None = None  # (A, Ta): class token, answer, [SEP], padding
    answer_mask: Tensor | None = None  # (A, Ta) bool
    answer_owners: Tensor | None = None  # (A,) which question
    answer_weights: Tensor | None = None  # (A,)
    target_positions: Tensor | None = None  # (M,) flat in A * Ta, ascending: where a real token follows
    target_ids: Tensor | None = None  # (M,) the tokens that follow
