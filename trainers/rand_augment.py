"""RandAugment (Cubuk et al., 2020) with the ten operations of ALBEF and ViCHA, on uint8 pictures, one by one or as a batch.

What is drawn is apart from what is done: the same draws give the same pictures on a loader's processor and on a device. Two
slips of the published code (an unsigned byte that is negated in AutoContrast, values that wrap around in Sharpness) are
put right; `faithful` brings them back for parity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from shards.config import Config

Name = Literal[
    "Identity", "AutoContrast", "Equalize", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"
]  # fmt: skip
NAMES: tuple[Name, ...] = get_args(Name)
FILL = 128  # grey of what comes into view from outside
_LEVELS = 10
_SMOOTH_CENTRE, _SMOOTH_SUM = 5, 13  # a 3x3 kernel of ones with this centre
_SIGNED = frozenset({"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"})


class RandAugmentConfig(Config):
    """`count` operations are drawn, with replacement, and each is done with chance 1/2."""

    count: int = Field(default=2, ge=0)
    level: float = Field(default=7.0, ge=0, le=_LEVELS)
    """strength, of 10"""
    faithful: bool = False
    """AutoContrast and Sharpness as in the published code, slips included"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One drawn operation; `argument` is a factor, a shear, an offset in pixels or an angle in degrees, with its sign."""

    name: Name
    argument: float = 0.0


def draw_operations(config: RandAugmentConfig, rng: np.random.Generator) -> tuple[Operation, ...]:
    """Draw what is done to one picture; those that are skipped are left out."""
    drawn: list[Operation] = []
    for place in rng.integers(len(NAMES), size=config.count).tolist():
        name = NAMES[place]
        if rng.random() < 0.5:
            continue
        sign = -1.0 if name in _SIGNED and rng.random() < 0.5 else 1.0
        drawn.append(Operation(name=name, argument=sign * strength(name, config.level)))
    return tuple(drawn)


def strength(name: Name, level: float) -> float:
    """The argument of an operation at a level of 10, without its sign."""
    share = level / _LEVELS
    match name:
        case "Brightness" | "Sharpness":
            return 1.8 * share + 0.1
        case "ShearX" | "ShearY":
            return 0.3 * share
        case "TranslateX" | "TranslateY":
            return 10.0 * share
        case "Rotate":
            return 30.0 * share
    return 0.0


def augment(pictures: Tensor, operations: Sequence[Sequence[Operation]], *, faithful: bool = False) -> Tensor:
    """Do to every picture what was drawn for it, in its order.

    Args:
        pictures: (N, 3, H, W) uint8, on any device.
        operations: for each picture its draws.
        faithful: see `RandAugmentConfig`.

    Returns:
        (N, 3, H, W) uint8; the input is not changed.
    """
    if len(operations) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures and draws for {len(operations)}; give one list per picture")
    done = pictures.clone()
    for step in range(max(map(len, operations), default=0)):
        # Pictures with the same operation in this step are worked on together; the arguments may differ.
        groups: dict[Name, list[int]] = {}
        for place, drawn in enumerate(operations):
            if step < len(drawn):
                groups.setdefault(drawn[step].name, []).append(place)
        for name, places in groups.items():
            if name == "Identity":
                continue
            arguments = torch.tensor(
                [operations[place][step].argument for place in places], dtype=torch.float32, device=done.device
            )
            done[places] = _apply(name, done[places], arguments, faithful=faithful)
    return done


def _apply(name: Name, pictures: Tensor, arguments: Tensor, *, faithful: bool) -> Tensor:
    match name:
        case "AutoContrast":
            return _auto_contrast(pictures, faithful=faithful)
        case "Equalize":
            return _equalize(pictures)
        case "Brightness":
            levels = torch.arange(256, device=pictures.device, dtype=torch.float32)
            tables = (levels[None] * arguments[:, None]).clamp(0, 255).to(torch.uint8)
            return _by_table(pictures, tables[:, None].expand(-1, pictures.shape[1], -1))
        case "Sharpness":
            return _sharpen(pictures, arguments, faithful=faithful)
    return _warp(pictures, _FORWARD[name](arguments, pictures.shape[3], pictures.shape[2]))


def _by_table(pictures: Tensor, tables: Tensor) -> Tensor:
    """Look every value up. tables: (N, 3, 256) uint8."""
    return tables.gather(2, pictures.flatten(2).long()).view_as(pictures)


def _auto_contrast(pictures: Tensor, *, faithful: bool) -> Tensor:
    flat = pictures.flatten(2)
    low, high = flat.amin(2).float(), flat.amax(2).float()
    scale = 255.0 / (high - low).clamp(min=1)
    # Negating the unsigned minimum gives 256 - low instead of -low.
    offset = ((256 - low) % 256 if faithful else -low) * scale
    levels = torch.arange(256, device=pictures.device, dtype=torch.float32).expand(*low.shape, 256)
    stretched = (levels * scale[..., None] + offset[..., None]).clamp(0, 255)
    # A float that is a hair below its whole number must not lose one by the cast.
    tables = torch.where((high > low)[..., None], (stretched + 1e-4).clamp(max=255), levels).to(torch.uint8)
    return _by_table(pictures, tables)


def _equalize(pictures: Tensor) -> Tensor:
    """Spread the histogram of each channel evenly, by the integer rule of PIL's ImageOps.equalize."""
    count, channels = pictures.shape[:2]
    flat = pictures.flatten(2).long()
    histogram = torch.zeros(count, channels, 256, dtype=torch.long, device=pictures.device)
    histogram.scatter_add_(2, flat, torch.ones_like(flat))
    total = flat.shape[2]
    last = histogram.gather(2, flat.amax(2, keepdim=True))[..., 0]
    step = (total - last) // 255
    before = histogram.cumsum(2) - histogram
    spread = ((before + (step // 2)[..., None]) // step.clamp(min=1)[..., None]).clamp(max=255)
    identity = torch.arange(256, device=pictures.device).expand_as(spread)
    return _by_table(pictures, torch.where((step > 0)[..., None], spread, identity).to(torch.uint8))


def _sharpen(pictures: Tensor, factors: Tensor, *, faithful: bool) -> Tensor:
    """Away from (factor above 1) or towards (below 1) the smoothed picture; the outermost pixels stay."""
    channels = pictures.shape[1]
    values = pictures.float()
    kernel = torch.ones(channels, 1, 3, 3, device=pictures.device)
    kernel[:, :, 1, 1] = _SMOOTH_CENTRE
    smooth = (functional.conv2d(values, kernel, groups=channels) / _SMOOTH_SUM).round()
    inner = values[:, :, 1:-1, 1:-1]
    mixed = smooth + factors[:, None, None, None] * (inner - smooth)
    done = pictures.clone()
    done[:, :, 1:-1, 1:-1] = mixed.to(torch.int32).remainder(256) if faithful else mixed.clamp(0, 255)
    return done


def _shear_x(factor: Tensor, width: int, height: int) -> Tensor:
    return _matrices(factor, ((1, factor, 0), (0, 1, 0)))


def _shear_y(factor: Tensor, width: int, height: int) -> Tensor:
    return _matrices(factor, ((1, 0, 0), (factor, 1, 0)))


def _translate_x(offset: Tensor, width: int, height: int) -> Tensor:
    return _matrices(offset, ((1, 0, -offset), (0, 1, 0)))


def _translate_y(offset: Tensor, width: int, height: int) -> Tensor:
    return _matrices(offset, ((1, 0, 0), (0, 1, -offset)))


def _rotate(degrees: Tensor, width: int, height: int) -> Tensor:
    """Counter-clockwise about the centre, in pixels with y downwards."""
    angle = degrees * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    x, y = width / 2, height / 2
    return _matrices(degrees, ((cos, sin, (1 - cos) * x - sin * y), (-sin, cos, sin * x + (1 - cos) * y)))


_FORWARD: Mapping[str, Callable[[Tensor, int, int], Tensor]] = {
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
}


def _matrices(like: Tensor, rows: Sequence[Sequence[float | Tensor]]) -> Tensor:
    """(N, 2, 3) from entries that are numbers or (N,)."""
    entries = [
        torch.as_tensor(entry, dtype=like.dtype, device=like.device).expand_as(like) for row in rows for entry in row
    ]
    return torch.stack(entries, dim=1).view(-1, 2, 3)


def _warp(pictures: Tensor, forward: Tensor) -> Tensor:
    """Move every pixel (x, y) to `forward @ (x, y, 1)`, bilinearly; what comes from outside is grey.

    Args:
        pictures: (N, C, H, W) uint8.
        forward: (N, 2, 3), from places in the picture to places in the result, in pixels.
    """
    height, width = pictures.shape[2:]
    linear, shift = forward[:, :, :2], forward[:, :, 2:]
    back = torch.linalg.inv(linear)
    rows, columns = torch.meshgrid(
        torch.arange(height, device=pictures.device, dtype=torch.float32),
        torch.arange(width, device=pictures.device, dtype=torch.float32),
        indexing="ij",
    )
    targets = torch.stack((columns.flatten(), rows.flatten()))  # (2, H*W)
    sources = (back @ (targets[None] - shift)).view(-1, 2, height, width)
    extent = torch.tensor([max(width - 1, 1), max(height - 1, 1)], device=pictures.device, dtype=torch.float32)
    grid = sources.permute(0, 2, 3, 1) * (2 / extent) - 1
    moved = functional.grid_sample(pictures.float() - FILL, grid, padding_mode="zeros", align_corners=True)
    return (moved + FILL).round().clamp(0, 255).to(torch.uint8)
