"""Masked image modelling: hide most patches, encode the rest, rebuild the pixels.

A small decoder does it from the visible patches alone (MAE, He et al., 2022), or the fusion tower does it with the caption
at hand (ViCHA, Shukor et al., 2022), or both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from model.config import Config
from model.layers.transformer import PreNormLayer
from model.positions import sincos_positions


class MaskedImageConfig(Config):
    """Masked pictures; the defaults are the published pretraining (the decoder alone, without text)."""

    # Who rebuilds: a decoder of its own, the fusion tower that reads the caption, or each of them, losses averaged.
    mode: Literal["unimodal", "cross_modal", "uni_cross_modal"] = "unimodal"
    weight: NonNegativeFloat = 1.0
    mask_ratio: float = Field(default=0.75, gt=0, lt=1)  # share of patches hidden from the encoder
    decoder_width: PositiveInt = 768
    decoder_layers: PositiveInt = 2
    decoder_heads: PositiveInt = 16
    normalise_pixels: bool = True  # per-patch target normalisation
    # Released code gives the class token its position on whole pictures, but none here.
    class_position: bool = False

    @property
    def decodes(self) -> bool:
        """Whether there is a decoder."""
        return self.mode != "cross_modal"

    @property
    def fuses(self) -> bool:
        """Whether the fusion tower rebuilds pictures."""
        return self.mode != "unimodal"


@dataclass(frozen=True, slots=True)
class PatchMask:
    """Which patches stay visible, by the order of a uniform noise."""

    keep: Tensor  # (B, kept) patch indices, in the order of the noise
    restore: Tensor  # (B, P) where each patch went in that order
    hidden: Tensor  # (B, P) 1.0 at hidden patches


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What one of the two made of the hidden patches."""

    loss: Tensor
    predicted: Tensor  # (B, P, patch * patch * 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedImage:
    """The loss, averaged over those who rebuilt, and its parts."""

    loss: Tensor
    mask: PatchMask
    target: Tensor  # (B, P, patch * patch * 3)
    decoded: Rebuilt | None  # by the decoder
    fused: Rebuilt | None  # by the fusion tower


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


class MaskedImageModelling(nn.Module):
    """Rebuild the pixels of hidden patches from the encoded visible ones."""

    positions: Tensor  # (1, 1 + P, width), fixed; only with a decoder

    def __init__(self, config: MaskedImageConfig, *, image_width: int, grid: int, patch_size: int) -> None:
        super().__init__()
        self.config = config
        self.patch_size = patch_size
        width = config.decoder_width if config.decodes else image_width
        pixels = patch_size * patch_size * 3
        self.embed = nn.Linear(image_width, width) if config.decodes else None
        # The released code draws the token and then overwrites it with zeros; zeros it is. Both rebuilders share it.
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        if config.decodes:
            self.register_buffer("positions", sincos_positions(width, grid)[None], persistent=False)
        count = config.decoder_layers if config.decodes else 0
        self.layers = nn.ModuleList(PreNormLayer(width, config.decoder_heads, 4 * width) for _ in range(count))
        # An eps unlike every other norm's on the picture side; published so.
        self.norm = nn.LayerNorm(width, eps=1e-5) if config.decodes else None
        self.pixels = nn.Linear(width, pixels) if config.decodes else None
        self.fused_pixels = nn.Linear(image_width, pixels) if config.fuses else None
        self.apply(_initialise)

    def forward(
        self, visible: Tensor, mask: PatchMask, pixels: Tensor, fuse: Callable[[Tensor], Tensor] | None = None
    ) -> MaskedImage:
        """Predict all patches and score the hidden ones.

        Args:
            visible: (B, 1 + kept, Dv), the encoder's output on the class token and the kept patches.
            mask: which patches were kept.
            pixels: (B, 3, H, W) normalised.
            fuse: reads (B, 1 + P, Dv) picture tokens against their captions; needed where the config says so.

        Returns:
            The mean squared error over the hidden patches of the whole batch, and its parts.
        """
        target = self._target(pixels)
        decoded = fused = None
        if self.embed is not None:
            decoded = self._score(self._decode(self.embed(visible), mask), target, mask)
        if self.fused_pixels is not None:
            assert fuse is not None
            # No position is added here: the visible patches have theirs, mask tokens are told apart by nothing but the
            # order, as published.
            fused = self._score(self.fused_pixels(fuse(self._whole(visible, mask))[:, 1:]), target, mask)
        losses = [rebuilt.loss for rebuilt in (decoded, fused) if rebuilt is not None]
        return MaskedImage(loss=torch.stack(losses).mean(), mask=mask, target=target, decoded=decoded, fused=fused)

    def _whole(self, visible: Tensor, mask: PatchMask) -> Tensor:
        """Put mask tokens where patches are hidden: (B, 1 + kept, D) to (B, 1 + P, D) in the picture's order."""
        batch, patches = mask.restore.shape
        hidden = self.mask_token.expand(batch, patches - (visible.shape[1] - 1), -1)
        shuffled = torch.cat([visible[:, 1:], hidden.to(visible.dtype)], dim=1)
        ordered = shuffled.gather(1, mask.restore[:, :, None].expand(-1, -1, visible.shape[2]))
        return torch.cat([visible[:, :1], ordered], dim=1)

    def _decode(self, tokens: Tensor, mask: PatchMask) -> Tensor:
        assert self.norm is not None
        assert self.pixels is not None
        states = self._whole(tokens, mask) + self.positions
        for layer in self.layers:
            states = layer(states)
        return self.pixels(self.norm(states)[:, 1:])  # type: ignore[no-any-return]

    def _score(self, predicted: Tensor, target: Tensor, mask: PatchMask) -> Rebuilt:
        error = (predicted - target).square().mean(dim=2)
        return Rebuilt(loss=(error * mask.hidden).sum() / mask.hidden.sum(), predicted=predicted)

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
