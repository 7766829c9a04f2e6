"""Where in the picture a text is seen: Grad-CAM over attention, and the choice among proposed boxes by it.

The model was never shown a box: a map comes from how strongly the score of a pair depends on each patch that a layer
attends to (Selvaraju et al., 2017, on attention as in ALBEF, Li et al., 2021). Both published scores are here: the match
logit with the cross attention of a fusion layer, and the contrast's similarity with the picture tower's own attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from model.families.vicha.batch import PairBatch
from model.families.vicha.model import Vicha
from model.family import Embed
from model.layers.attention import FusedAttention, SplitAttention


@dataclass(frozen=True, slots=True)
class AttentionGradient:
    """Attention of one layer, and how the summed score of the batch changes with it."""

    weights: Tensor  # (B, N, Q, S) shares, each row sums to 1
    gradient: Tensor  # (B, N, Q, S)


@dataclass(frozen=True, slots=True)
class BoxRanking:
    """What a map says of the proposed boxes."""

    scores: Tensor  # (R,)
    best: int | None  # `None` where no box holds anything of the map


def match_attention(family: Vicha, batch: PairBatch, *, layer: int | None = None) -> AttentionGradient:
    """Differentiate the match logits of B pairs by a layer's attention from text to picture.

    Args:
        family: is put to no other mode; evaluate with `eval()`, or dropout blurs the map.
        batch: B pairs with pictures.
        layer: counted over text and fusion layers together, as published; by default the third that reads pictures
            (8 of 12).

    Returns:
        Weights and gradients (B, N, T, 1 + P + K).

    Raises:
        ValueError: the layer does not read pictures.
    """
    first, count = family.config.text.fusion_layer, len(family.student.fusion.layers)
    chosen = min(first + 2, first + count - 1) if layer is None else layer
    if not first <= chosen < first + count:
        raise ValueError(f"layer {chosen} reads no picture; choose one of {first} to {first + count - 1}")
    attention = family.student.fusion.layers[chosen - first].cross_attention
    assert isinstance(attention, SplitAttention)

    states = family.predict(batch, Embed())  # what lies below the fusion tower needs no gradient
    with torch.enable_grad(), _watch(attention) as differentiate:
        fused = family.student.fusion(states.text_states, batch.text_mask, states.image_states)
        return differentiate(family.match(fused[:, 0])[:, 1].sum())


def contrast_attention(family: Vicha, batch: PairBatch, *, layer: int | None = None) -> AttentionGradient:
    """Differentiate the similarities of B pairs by a picture layer's attention.

    Args:
        family: as for `match_attention`.
        batch: B pairs with pictures.
        layer: of the picture tower; by default the last.

    Returns:
        Weights and gradients (B, N, 1 + P + K, 1 + P + K).

    Raises:
        ValueError: there is no such layer.
    """
    layers = family.student.image.layers
    chosen = len(layers) - 1 if layer is None else layer
    if not 0 <= chosen < len(layers):
        raise ValueError(f"there is no picture layer {chosen}; choose one of 0 to {len(layers) - 1}")
    attention = layers[chosen].attention
    assert isinstance(attention, FusedAttention)
    found = family.predict(batch, Embed(images=False))
    with torch.enable_grad(), _watch(attention) as differentiate:
        images = _image_features(family, batch)
        return differentiate((images * found.text_features).sum() / family.temperature)


def match_maps(family: Vicha, batch: PairBatch, *, layer: int | None = None) -> Tensor:
    """Map where each text is seen in its picture, by the match logit: (B, n, n) for n patches per side.

    The mean runs over all T positions of the batch's texts, padding included, as published: a longer batch scales the
    map, and moves nothing in it.
    """
    found = match_attention(family, batch, layer=layer)
    real = batch.text_mask[:, None, :, None]
    relevance = (found.weights * found.gradient.clamp(min=0) * real).mean(dim=(1, 2))  # (B, 1 + P + K)
    return _square(relevance, family.student.image.grid)


def contrast_maps(family: Vicha, batch: PairBatch, *, layer: int | None = None) -> Tensor:
    """Map where each text is seen in its picture, by the contrast's similarity: (B, n, n) for n patches per side."""
    found = contrast_attention(family, batch, layer=layer)
    relevance = (found.weights[:, :, 0] * found.gradient[:, :, 0].clamp(min=0)).mean(dim=1)  # (B, 1 + P + K)
    return _square(relevance, family.student.image.grid)


def enlarge(maps: Tensor, *, height: int, width: int) -> Tensor:
    """Resize (B, n, n) maps to (B, height, width), bicubic as published."""
    return interpolate(maps[:, None], size=(height, width), mode="bicubic", align_corners=False)[:, 0]


def rank_boxes(relevance: Tensor, boxes: Sequence[Sequence[float]]) -> BoxRanking:
    """Score proposed boxes by what they hold of a map, per square root of their area.

    Args:
        relevance: (height, width) map at the picture's size (see `enlarge`).
        boxes: (x0, y0, width, height) in pixels each; cut to whole pixels as published, and to the picture.

    Returns:
        The scores, and the box that holds most; a box must hold more than nothing.

    Raises:
        ValueError: a box has no area.
    """
    scores = torch.zeros(len(boxes))
    for place, (x0, y0, width, height) in enumerate(boxes):
        if width <= 0 or height <= 0:
            raise ValueError(f"proposed box {place} has width {width} and height {height}; drop boxes without area")
        rows = slice(max(0, int(y0)), max(0, int(y0 + height)))
        columns = slice(max(0, int(x0)), max(0, int(x0 + width)))
        scores[place] = relevance[rows, columns].sum() / (width * height) ** 0.5
    best = int(scores.argmax()) if len(boxes) and bool((scores > 0).any()) else None
    return BoxRanking(scores=scores, best=best)


def _image_features(family: Vicha, batch: PairBatch) -> Tensor:
    """Embed a batch's pictures as `Embed` does, but with gradient."""
    towers = family.student
    concepts = None
    if towers.concepts is not None and batch.concept_ids is not None:
        concepts = towers.concepts(batch.concept_ids, batch.concept_mask)
    return towers.image_features(towers.see(towers.image.embed(family.normalise(batch.pixels)), concepts).top)


def _square(relevance: Tensor, grid: int) -> Tensor:
    """(B, 1 + P + K) columns to (B, n, n): without the class token before the patches and the concepts after them."""
    return relevance[:, 1 : 1 + grid * grid].reshape(-1, grid, grid)


@contextmanager
def _watch(attention: SplitAttention | FusedAttention) -> Iterator[Callable[[Tensor], AttentionGradient]]:
    """Catch what a layer's attention works with, whatever kernel it runs on; yields a function of the score.

    What is mixed of the values is cut off from what lies before it, so the gradient goes no further down. Its product
    with the values is the gradient by the shares themselves, which no fused kernel ever gives out.
    """
    caught: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
            caught[name] = output.detach()

        return hook

    def cut(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        caught["mixed"] = inputs[0].detach().requires_grad_()
        return (caught["mixed"],)

    parts = ("qkv",) if isinstance(attention, FusedAttention) else ("query", "key", "value")
    handles = [getattr(attention, part).register_forward_hook(keep(part)) for part in parts]
    handles.append(attention.out.register_forward_pre_hook(cut))

    def differentiate(score: Tensor) -> AttentionGradient:
        (by_mixed,) = torch.autograd.grad(score, caught["mixed"])
        states = caught["qkv"].chunk(3, dim=2) if "qkv" in caught else tuple(caught[part] for part in parts)
        query, key, value = (_heads(state, attention.heads) for state in states)
        weights = (query @ key.transpose(2, 3) * query.shape[3] ** -0.5).softmax(dim=3)
        return AttentionGradient(weights=weights, gradient=_heads(by_mixed, attention.heads) @ value.transpose(2, 3))

    try:
        yield differentiate
    finally:
        for handle in handles:
            handle.remove()


def _heads(states: Tensor, heads: int) -> Tensor:
    return states.reshape(*states.shape[:2], heads, -1).transpose(1, 2)
