"""The encoders of the published pretraining, written as plainly as they are described, under the released parameter names.

Scores, softmax and values as separate products, one pass per call, nothing shared between calls: what a speed of ours is
compared with. No forward code is shared with `model/`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, softmax

from model.towers.image import VisionConfig
from model.towers.text import TextConfig

SELF_MASKED = -10_000.0  # what the published text model adds to the scores of padding


def attend(query: Tensor, key: Tensor, value: Tensor, *, heads: int, bias: Tensor | None, drop: nn.Module) -> Tensor:
    """Multi-head attention of (B, T, D) on (B, S, D); `bias` (B, 1, 1, S) is added to the scores."""
    batch, length, width = query.shape

    def split(states: Tensor) -> Tensor:
        return states.view(batch, -1, heads, width // heads).permute(0, 2, 1, 3)

    scores = split(query) @ split(key).transpose(-1, -2) / math.sqrt(width // heads)
    if bias is not None:
        scores = scores + bias
    mixed: Tensor = drop(softmax(scores, dim=-1)) @ split(value)
    return mixed.permute(0, 2, 1, 3).reshape(batch, length, width)


class VisionAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.drop = nn.Identity()

    def forward(self, states: Tensor) -> Tensor:
        query, key, value = self.qkv(states).chunk(3, dim=-1)
        mixed = attend(query, key, value, heads=self.heads, bias=None, drop=self.drop)
        return self.proj(mixed)  # type: ignore[no-any-return]


class VisionBlock(nn.Module):
    """A pre-norm block."""

    def __init__(self, width: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = VisionAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})

    def forward(self, states: Tensor) -> Tensor:
        states = states + self.attn(self.norm1(states))
        return states + self.mlp["fc2"](gelu(self.mlp["fc1"](self.norm2(states))))  # type: ignore[no-any-return]


class VisionEncoder(nn.Module):
    """ViT, whose every block's output passes through the final norm where it is asked for."""

    def __init__(self, config: VisionConfig, *, image_size: int, patch_size: int) -> None:
        super().__init__()
        width, grid = config.width, image_size // patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch_size, stride=patch_size)})
        inner = int(width * config.mlp_ratio)
        self.blocks = nn.ModuleList(
            VisionBlock(width, config.heads, inner, config.norm_eps) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)

    def forward(self, image: Tensor, concepts: Tensor | None, *, hidden: bool) -> tuple[Tensor, list[Tensor]]:
        """Encode whole pictures, concept tokens appended: the top states, and those of all blocks where `hidden`."""
        patches = self._patches(image)
        tokens = torch.cat([self.cls_token.expand(len(image), -1, -1), patches], dim=1) + self.pos_embed
        if concepts is not None:
            tokens = torch.cat([tokens, concepts], dim=1)
        states = []
        for block in self.blocks:
            tokens = block(tokens)
            if hidden:
                states.append(self.norm(tokens))
        return self.norm(tokens), states

    def visible(self, image: Tensor, keep: Tensor) -> Tensor:
        """Encode the kept patches of each picture; the class token gets no position."""
        placed = self._patches(image) + self.pos_embed[:, 1:]
        kept = torch.gather(placed, 1, keep.unsqueeze(-1).repeat(1, 1, placed.shape[-1]))
        tokens = torch.cat([self.cls_token.expand(len(image), -1, -1), kept], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)  # type: ignore[no-any-return]

    def _patches(self, image: Tensor) -> Tensor:
        return self.patch_embed["proj"](image).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class BertAttention(nn.Module):
    def __init__(self, config: TextConfig, context_width: int) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        projections = {"query": width, "key": context_width, "value": context_width}
        self.self = nn.ModuleDict({name: nn.Linear(size, width) for name, size in projections.items()})
        self.output = nn.ModuleDict(
            {"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, eps=config.norm_eps)}
        )
        self.drop = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, context: Tensor, bias: Tensor | None) -> Tensor:
        query, key, value = self.self["query"](states), self.self["key"](context), self.self["value"](context)
        mixed = attend(query, key, value, heads=self.heads, bias=bias, drop=self.drop)
        return self.output["LayerNorm"](states + self.drop(self.output["dense"](mixed)))  # type: ignore[no-any-return]


class BertLayer(nn.Module):
    """A post-norm layer; where `context_width` is given, with attention on another sequence in its middle."""

    def __init__(self, config: TextConfig, context_width: int | None) -> None:
        super().__init__()
        width = config.width
        self.attention = BertAttention(config, width)
        self.crossattention = None if context_width is None else BertAttention(config, context_width)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, config.mlp_width)})
        self.output = nn.ModuleDict(
            {"dense": nn.Linear(config.mlp_width, width), "LayerNorm": nn.LayerNorm(width, eps=config.norm_eps)}
        )
        self.drop = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, bias: Tensor, context: Tensor | None, context_bias: Tensor | None) -> Tensor:
        states = self.attention(states, states, bias)
        if self.crossattention is not None:
            assert context is not None
            states = self.crossattention(states, context, context_bias)
        widened = gelu(self.intermediate["dense"](states))
        return self.output["LayerNorm"](states + self.drop(self.output["dense"](widened)))  # type: ignore[no-any-return]


class Bert(nn.Module):
    """Embeddings and layers, of which those from `fusion_layer` on attend to a picture too."""

    def __init__(self, config: TextConfig, *, layers: int, context_width: int | None) -> None:
        super().__init__()
        self.fusion_layer = config.fusion_layer
        width = config.width
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(config.vocab_size, width, padding_idx=0),
                "position_embeddings": nn.Embedding(config.max_positions, width),
                "token_type_embeddings": nn.Embedding(config.token_types, width),
                "LayerNorm": nn.LayerNorm(width, eps=config.norm_eps),
            }
        )
        self.drop = nn.Dropout(config.dropout)
        crosses = [context_width if place >= config.fusion_layer else None for place in range(layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(BertLayer(config, cross) for cross in crosses)})

    def text(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Text mode: the embeddings' output and that of each layer below the fusion."""
        parts = self.embeddings
        places = torch.arange(ids.shape[1], device=ids.device)
        summed = parts["word_embeddings"](ids) + parts["token_type_embeddings"](torch.zeros_like(ids))
        states = [self.drop(parts["LayerNorm"](summed + parts["position_embeddings"](places)))]
        for layer in self._layers()[: self.fusion_layer]:
            states.append(layer(states[-1], _bias(mask, SELF_MASKED), None, None))
        return states

    def fusion(self, states: Tensor, mask: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """Fusion mode: the upper layers on given states, attending to `context` (B, S, D')."""
        seen = _bias(context_mask, torch.finfo(context.dtype).min)
        for layer in self._layers()[self.fusion_layer :]:
            states = layer(states, _bias(mask, SELF_MASKED), context, seen)
        return states

    def _layers(self) -> nn.ModuleList:
        layers = self.encoder["layer"]
        assert isinstance(layers, nn.ModuleList)
        return layers


class WordPrediction(nn.Module):
    """BERT's head of masked words, at every position; its matrix is the word embedding."""

    def __init__(self, config: TextConfig, words: nn.Embedding) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        width = config.width
        self.transform = nn.ModuleDict(
            {"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, eps=config.norm_eps)}
        )
        self.decoder = nn.Linear(width, config.vocab_size)
        self.decoder.weight = words.weight
        self.decoder.bias = self.bias

    def forward(self, states: Tensor) -> Tensor:
        return self.decoder(self.transform["LayerNorm"](gelu(self.transform["dense"](states))))  # type: ignore[no-any-return]


def _bias(mask: Tensor, masked: float) -> Tensor:
    return (1.0 - mask[:, None, None, :].float()) * masked
