"""The picture tower: a vision transformer to whose tokens others (visual concepts) may be appended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from model.config import Config
from model.layers.transformer import PreNormLayer


class VisionConfig(Config):
    """Sizes of the picture tower; the defaults are ViT-B."""

    width: PositiveInt = 768
    depth: PositiveInt = 12
    heads: PositiveInt = 12
    mlp_ratio: PositiveFloat = 4.0
    norm_eps: float = Field(default=1e-6, gt=0)


@dataclass(frozen=True, slots=True)
class ImageStates:
    """What the tower saw: `top` (B, 1 + P + K, Dv) after the final norm, and each layer's output before it."""

    top: Tensor
    layers: tuple[Tensor, ...]


class PixelNorm(nn.Module):
    """Turn uint8 pixels into normalised floats, on whatever device they are; floats pass as already normalised."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255.0, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255.0, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 or float to (B, 3, H, W) float."""
        return pixels if pixels.is_floating_point() else (pixels - self.mean) / self.std


class ImageTower(nn.Module):
    """A vision transformer over a square picture; pixels beyond the last whole patch are ignored."""

    def __init__(self, config: VisionConfig, *, image_size: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.grid = image_size // patch_size
        width = config.width
        self.patches = nn.Conv2d(3, width, patch_size, stride=patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + self.grid**2, width))
        inner = int(width * config.mlp_ratio)
        self.layers = nn.ModuleList(
            PreNormLayer(width, config.heads, inner, norm_eps=config.norm_eps) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.apply(_initialise)
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def embed(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels to (B, P, Dv) patch tokens, still without positions."""
        return self.patches(pixels).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]

    def forward(self, patches: Tensor, appended: Tensor | None = None) -> ImageStates:
        """Encode whole pictures.

        Args:
            patches: (B, P, Dv) from `embed`.
            appended: (B, K, Dv) further tokens; they get no position from this tower.

        Returns:
            The states, top and per layer.
        """
        count = patches.shape[0]
        tokens = torch.cat([self.class_token.expand(count, -1, -1), patches], dim=1) + self.positions  # (B, 1 + P, Dv)
        if appended is not None:
            tokens = torch.cat([tokens, appended], dim=1)
        return self._run(tokens)

    def encode_visible(self, patches: Tensor, keep: Tensor, *, class_position: bool) -> Tensor:
        """Encode only the kept patches of each picture, as masked autoencoders do.

        Args:
            patches: (B, P, Dv) from `embed`.
            keep: (B, kept) indices of the patches that stay visible.
            class_position: whether the class token gets its position, as it does on whole pictures.

        Returns:
            (B, 1 + kept, Dv) after the final norm.
        """
        placed = patches + self.positions[:, 1:]
        visible = placed.gather(1, keep[:, :, None].expand(-1, -1, placed.shape[2]))
        first = self.class_token + self.positions[:, :1] if class_position else self.class_token
        tokens = torch.cat([first.expand(len(visible), -1, -1), visible], dim=1)
        return self._run(tokens).top

    def _run(self, tokens: Tensor) -> ImageStates:
        outputs: list[Tensor] = []
        for layer in self.layers:
            tokens = layer(tokens)
            outputs.append(tokens)
        return ImageStates(top=self.norm(tokens), layers=tuple(outputs))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
