"""Masked image modelling: hide most patches, encode the rest, rebuild the pixels (MAE, He et al., 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from model.config import Config
from model.layers.transformer import PreNormLayer
from model.positions import sincos_positions


class MaskedImageConfig(Config):
    """Masked pictures; the defaults are the published pretraining (the decoder alone, without text)."""

    weight: NonNegativeFloat = 1.0
    mask_ratio: float = Field(default=0.75, gt=0, lt=1)  # share of patches hidden from the encoder
    decoder_width: PositiveInt = 768
    decoder_layers: PositiveInt = 2
    decoder_heads: PositiveInt = 16
    normalise_pixels: bool = True  # per-patch target normalisation
    # Released code gives the class token its position on whole pictures, but none here.
    class_position: bool = False


@dataclass(frozen=True, slots=True)
class PatchMask:
    """Which patches stay visible, by the order of a uniform noise."""

    keep: Tensor  # (B, kept) patch indices, in the order of the noise
    restore: Tensor  # (B, P) where each patch went in that order
    hidden: Tensor  # (B, P) 1.0 at hidden patches


@dataclass(frozen=True, slots=True)
class MaskedImage:
    loss: Tensor
    mask: PatchMask
    predicted: Tensor  # (B, P, patch * patch * 3)
    target: Tensor  # (B, P, patch * patch * 3)


def patch_mask(noise: Tensor, mask_ratio: float) -> PatchMask:
    """Keep the patches with the smallest noise (B, P)."""
    patches = noise.shape[1]
    kept = int(patches * (1 - mask_ratio))
    order = noise.argsort(dim=1)
    restore = order.argsort(dim=1)
    return PatchMask(keep=order[:, :kept], restore=restore, hidden=(restore >= kept).to(noise.dtype))


def pixel_patches(pixels: Tensor, patch_size: int) -> Tensor:
    """Cut (B, 3, H, W) pixels into (B, P, patch * patch * 3), each patch flattened as row, column, channel."""
    batch, channels, height, width = pixels.shape
    rows, columns = height // patch_size, width // patch_size
    whole = pixels[:, :, : rows * patch_size, : columns * patch_size]
    cut = whole.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)


class MaskedImageDecoder(nn.Module):
    """Rebuild the pixels of hidden patches from the encoded visible ones."""

    positions: Tensor  # (1, 1 + P, width), fixed

    def __init__(self, config: MaskedImageConfig, *, image_width: int, grid: int, patch_size: int) -> None:
        super().__init__()
        self.config = config
        self.patch_size = patch_size
        width = config.decoder_width
        self.embed = nn.Linear(image_width, width)
        # The released code draws the token and then overwrites it with zeros; zeros it is.
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("positions", sincos_positions(width, grid)[None], persistent=False)
        self.layers = nn.ModuleList(
            PreNormLayer(width, config.decoder_heads, 4 * width) for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(width, eps=1e-5)  # unlike every other norm on the picture side; published so
        self.pixels = nn.Linear(width, patch_size * patch_size * 3)
        self.apply(_initialise)

    def forward(self, visible: Tensor, mask: PatchMask, pixels: Tensor) -> MaskedImage:
        """Predict all patches and score the hidden ones.

        Args:
            visible: (B, 1 + kept, Dv), the encoder's output on the class token and the kept patches.
            mask: which patches were kept.
            pixels: (B, 3, H, W) normalised.

        Returns:
            The mean squared error over the hidden patches of the whole batch, and its parts.
        """
        tokens = self.embed(visible)
        batch, patches = mask.restore.shape
        hidden = self.mask_token.expand(batch, patches - (tokens.shape[1] - 1), -1)
        shuffled = torch.cat([tokens[:, 1:], hidden], dim=1)
        ordered = shuffled.gather(1, mask.restore[:, :, None].expand(-1, -1, tokens.shape[2]))
        states = torch.cat([tokens[:, :1], ordered], dim=1) + self.positions
        for layer in self.layers:
            states = layer(states)
        predicted = self.pixels(self.norm(states)[:, 1:])
        target = self._target(pixels)
        error = (predicted - target).square().mean(dim=2)
        loss = (error * mask.hidden).sum() / mask.hidden.sum()
        return MaskedImage(loss=loss, mask=mask, predicted=predicted, target=target)

    @torch.no_grad()
    def _target(self, pixels: Tensor) -> Tensor:
        patches = pixel_patches(pixels, self.patch_size)
        if not self.config.normalise_pixels:
            return patches
        centred = patches - patches.mean(dim=2, keepdim=True)
        # By hand: on a CPU, torch's own variance takes ten times as long, a quarter of this objective's forward pass.
        variance = centred.square().sum(dim=2, keepdim=True) / (patches.shape[2] - 1)  # unbiased, as published
        return centred / (variance + 1e-6).sqrt()


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
