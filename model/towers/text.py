"""The text side: a BERT-like tower over words, the fusion tower that reads pictures, and the masked-word head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from model.config import Config
from model.layers.transformer import PostNormLayer

PAD_ID = 0  # every published vocabulary of this line puts [PAD] first; its embedding never learns from look-ups


class TextConfig(Config):
    """Sizes of the text and fusion towers together; the defaults are BERT-base cut in the middle."""

    vocab_size: PositiveInt = 30522
    width: PositiveInt = 768
    layers: PositiveInt = 12  # both towers together
    fusion_layer: PositiveInt = 6  # the first layer that reads pictures; layers below are the text tower
    heads: PositiveInt = 12
    mlp_width: PositiveInt = 3072
    max_positions: PositiveInt = 512
    token_types: PositiveInt = 2
    dropout: float = Field(default=0.1, ge=0, lt=1)  # hidden states and attention alike
    norm_eps: float = Field(default=1e-12, gt=0)

    @model_validator(mode="after")
    def _both_towers_have_layers(self) -> TextConfig:
        if self.fusion_layer >= self.layers:
            raise ValueError(f"fusion_layer {self.fusion_layer} leaves no fusion layer of {self.layers} layers")
        return self


@dataclass(frozen=True, slots=True)
class TextStates:
    """What the tower read: `top` (B, T, Dt), and the embedding's output followed by each layer's."""

    top: Tensor
    layers: tuple[Tensor, ...]
    mask: Tensor  # (B, T), true at real tokens


class TextEmbedding(nn.Module):
    """Word, position and (always the first) type embeddings, summed and normalised."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.width, padding_idx=PAD_ID)
        self.positions = nn.Embedding(config.max_positions, config.width)
        self.types = nn.Embedding(config.token_types, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) token ids to (B, T, Dt)."""
        summed = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.types.weight[0]
        return self.dropout(self.norm(summed))  # type: ignore[no-any-return]


class TextTower(nn.Module):
    """Post-norm layers over words alone."""

    def __init__(self, config: TextConfig, *, layers: int) -> None:
        super().__init__()
        self.embedding = TextEmbedding(config)
        self.layers = nn.ModuleList(_layer(config, picture_width=None) for _ in range(layers))
        self.apply(initialise_text)

    def forward(self, ids: Tensor, mask: Tensor) -> TextStates:
        """Read texts: (B, T) ids and (B, T) mask of real tokens."""
        states = self.embedding(ids)
        outputs = [states]
        for layer in self.layers:
            states = layer(states, mask)
            outputs.append(states)
        return TextStates(top=states, layers=tuple(outputs), mask=mask)


class FusionTower(nn.Module):
    """Post-norm layers in which texts attend to pictures."""

    def __init__(self, config: TextConfig, *, picture_width: int) -> None:
        super().__init__()
        count = config.layers - config.fusion_layer
        self.layers = nn.ModuleList(_layer(config, picture_width=picture_width) for _ in range(count))
        self.apply(initialise_text)

    def forward(
        self,
        texts: Tensor,
        mask: Tensor | None,
        pictures: Tensor,
        strays: Tensor | None = None,
        *,
        picture_mask: Tensor | None = None,
    ) -> Tensor:
        """Read texts against I pictures, each picture's keys and values computed once.

        Args:
            texts: (I * G + M, T, Dt) from the text tower: G texts for the first picture, G for the next, and so on;
                after them M further texts for the pictures named by `strays`.
            mask: (I * G + M, T), true at real tokens; `None` where all are.
            pictures: (I, S, Dv).
            strays: (M,) picture numbers; `None` where M is 0.
            picture_mask: (I, S), true at what may be seen; `None` shows all.

        Returns:
            (I * G + M, T, Dt).

        Raises:
            ValueError: the pictures do not have the same number of texts.
        """
        whole = len(texts) - (0 if strays is None else len(strays))
        if whole % len(pictures):
            raise ValueError(f"{whole} texts cannot be dealt evenly to {len(pictures)} pictures")
        for layer in self.layers:
            texts = layer(texts, mask, pictures, strays, picture_mask=picture_mask)
        return texts


class WordHead(nn.Module):
    """Predict words at given states; the output matrix is the word embedding's (tied), only the bias is its own."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.apply(initialise_text)

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        """(M, Dt) states and the (V, Dt) word matrix to (M, V) logits."""
        return linear(self.norm(gelu(self.dense(states))), words, self.bias)


def initialise_text(module: nn.Module) -> None:
    """BERT's initialisation: normal with deviation 0.02, zero biases, zero for the padding word."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        if module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()


def _layer(config: TextConfig, *, picture_width: int | None) -> PostNormLayer:
    return PostNormLayer(
        config.width,
        config.heads,
        config.mlp_width,
        picture_width=picture_width,
        dropout=config.dropout,
        norm_eps=config.norm_eps,
    )
