"""RandAugment (Cubuk et al., 2020) with the ten operations of ALBEF and ViCHA, on uint8 pictures, one by one or as a batch.

What is drawn is apart from what is done: the same draws give the same pictures on a loader's processor and on a device. Two
slips of the published code (an unsigned byte that is negated in AutoContrast, values that wrap around in Sharpness) are
put right; `faithful` brings them back for parity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
_TRANSLATIONS = frozenset({"TranslateX", "TranslateY"})
_SIGNED = _TRANSLATIONS | {"ShearX", "ShearY", "Rotate"}
_GRIDS = 32  # half a megabyte each at 256 pixels


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
    done = pictures
    for step in range(max(map(len, operations), default=0)):
        # Pictures with the same operation in this step are worked on together; the arguments may differ.
        groups: dict[Name, list[int]] = {}
        for place, drawn in enumerate(operations):
            if step < len(drawn):
                groups.setdefault(drawn[step].name, []).append(place)
        for name, places in groups.items():
            if name == "Identity":
                continue
            arguments = [operations[place][step].argument for place in places]
            if len(places) == len(done):  # always so for a single picture, which is then not copied in and out
                done = _apply(name, done, arguments, faithful=faithful)
            else:
                done = done.clone() if done is pictures else done
                done[places] = _apply(name, done[places], arguments, faithful=faithful)
    return done.clone() if done is pictures else done


def _apply(name: Name, pictures: Tensor, arguments: Sequence[float], *, faithful: bool) -> Tensor:
    match name:
        case "AutoContrast":
            return _auto_contrast(pictures, faithful=faithful)
        case "Equalize":
            return _equalize(pictures)
        case "Brightness":
            return _to_bytes(pictures.float().mul_(_column(arguments, pictures)[..., None, None]).clamp_(0, 255))
        case "Sharpness":
            return _sharpen(pictures, _column(arguments, pictures)[..., None, None], faithful=faithful)
    return _warp(pictures, name, arguments)


def _column(arguments: Sequence[float], pictures: Tensor) -> Tensor:
    """(N, 1) float32, beside the pictures."""
    return torch.tensor(arguments, dtype=torch.float32, device=pictures.device)[:, None]


def _to_bytes(values: Tensor) -> Tensor:
    """Cut floats of 0 to 255 to whole numbers."""
    # By way of 16 bits, because the straight conversion has no vector code on a processor and takes 2.5 times as long.
    return values.to(torch.int16).to(torch.uint8)


def _by_table(pictures: Tensor, tables: Tensor) -> Tensor:
    """Look every value up. tables: (N, 3, 256) uint8."""
    return (_by_table_of_bytes if pictures.device.type == "cpu" else _by_table_at_once)(pictures, tables)


def _by_table_at_once(pictures: Tensor, tables: Tensor) -> Tensor:
    return tables.gather(2, pictures.flatten(2).long()).view_as(pictures)


def _by_table_of_bytes(pictures: Tensor, tables: Tensor) -> Tensor:
    # Bytes translate themselves without being widened to indices: a fifth of the time of a gather on a processor.
    done = torch.empty(pictures.shape, dtype=torch.uint8)
    planes = zip(*(each.flatten(0, 1).numpy() for each in (pictures, tables, done)), strict=True)
    for plane, table, target in planes:
        target[...] = np.frombuffer(bytearray(plane).translate(table.tobytes()), dtype=np.uint8).reshape(plane.shape)
    return done


def _auto_contrast(pictures: Tensor, *, faithful: bool) -> Tensor:
    flat = pictures.flatten(2)
    low, high = flat.amin(2)[..., None].float(), flat.amax(2)[..., None].float()  # (N, C, 1)
    is_flat = high <= low
    scale = (255.0 / (high - low).clamp_(min=1)).masked_fill_(is_flat, 1)
    # Negating the unsigned minimum gives 256 - low instead of -low.
    offset = (((256 - low) % 256 if faithful else -low) * scale).masked_fill_(is_flat, 0)
    levels = torch.arange(256, dtype=torch.float32, device=pictures.device)
    # A float that is a hair below its whole number must not lose one by the cast.
    stretched = (levels * scale).add_(offset).add_(1e-4).clamp_(0, 255)
    return _by_table(pictures, _to_bytes(stretched))


def _equalize(pictures: Tensor) -> Tensor:
    """Spread the histogram of each channel evenly, by the integer rule of PIL's ImageOps.equalize."""
    histogram = _histograms(pictures)
    levels = torch.arange(256, device=pictures.device)
    brightest = torch.where(histogram > 0, levels, 0).amax(2, keepdim=True)
    last = histogram.gather(2, brightest)[..., 0]
    step = (histogram.sum(2) - last) // 255
    before = histogram.cumsum(2) - histogram
    spread = ((before + (step // 2)[..., None]) // step.clamp(min=1)[..., None]).clamp(max=255)
    return _by_table(pictures, torch.where((step > 0)[..., None], spread, levels).to(torch.uint8))


def _histograms(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) uint8 → (N, 3, 256) int64, how often each value occurs in each channel."""
    return (_histograms_by_plane if pictures.device.type == "cpu" else _histograms_at_once)(pictures)


def _histograms_at_once(pictures: Tensor) -> Tensor:
    flat = pictures.flatten(2).long()
    histograms = torch.zeros(*flat.shape[:2], 256, dtype=torch.long, device=pictures.device)
    return histograms.scatter_add_(2, flat, torch.ones_like(flat))


def _histograms_by_plane(pictures: Tensor) -> Tensor:
    planes = pictures.flatten(2).flatten(0, 1)
    return torch.stack([plane.bincount(minlength=256) for plane in planes]).view(*pictures.shape[:2], 256)


def _sharpen(pictures: Tensor, factors: Tensor, *, faithful: bool) -> Tensor:
    """Away from (factor above 1) or towards (below 1) the smoothed picture; the outermost pixels stay.

    Args:
        pictures: (N, C, H, W) uint8.
        factors: (N, 1, 1, 1).
    """
    # The kernel is a box of ones whose centre weighs more. Two runs of sums are a sixth of a grouped convolution's time; the
    # sums are whole numbers of less than 12 bits, and halving the width of what is moved is quicker once more.
    values = pictures.to(torch.int16)
    inner = values[:, :, 1:-1, 1:-1]
    rows = (values[:, :, :-2] + values[:, :, 1:-1]).add_(values[:, :, 2:])
    smooth = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).add_(inner, alpha=_SMOOTH_CENTRE - 1)
    # The sum of the kernel is odd, so that nothing lies just between two numbers, and a product rounds as a quotient does.
    smoothed = smooth.float().mul_(1 / _SMOOTH_SUM).round_()
    mixed = inner.float().sub_(smoothed).mul_(factors).add_(smoothed)
    done = pictures.clone()
    done[:, :, 1:-1, 1:-1] = mixed.to(torch.int32).remainder(256) if faithful else _to_bytes(mixed.clamp_(0, 255))
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


def _warp(pictures: Tensor, name: Name, arguments: Sequence[float]) -> Tensor:
    """Move every pixel bilinearly, each picture by its own argument; what comes from outside is grey.

    Args:
        pictures: (N, C, H, W) uint8.
        name: of an operation in `_FORWARD`.
        arguments: N of them.
    """
    if name in _TRANSLATIONS and all(argument.is_integer() for argument in arguments):
        return _moved(pictures, name, [int(argument) for argument in arguments])
    height, width = pictures.shape[2:]
    grids = [_grid(name, argument, width, height, pictures.device) for argument in arguments]
    grid = torch.stack(grids) if len(grids) > 1 else grids[0][None]
    # About grey, so that the zeros that `grid_sample` takes from outside are grey.
    moved = functional.grid_sample(pictures.float().sub_(FILL), grid, padding_mode="zeros", align_corners=True)
    return _to_bytes(moved.add_(FILL + 0.5))


def _moved(pictures: Tensor, name: Name, offsets: Sequence[int]) -> Tensor:
    """Translate by whole pixels, which no interpolation touches."""
    moved = torch.full_like(pictures, FILL)
    across = name == "TranslateX"
    length = pictures.shape[3 if across else 2]
    for source, target, offset in zip(pictures, moved, offsets, strict=True):
        kept = slice(max(0, offset), max(0, length - max(0, -offset)))  # a positive offset moves to the left, or up
        taken = slice(max(0, -offset), max(0, length - max(0, offset)))
        if across:
            target[:, :, taken] = source[:, :, kept]
        else:
            target[:, taken] = source[:, kept]
    return moved


@lru_cache(_GRIDS)
def _grid(name: Name, argument: float, width: int, height: int, device: torch.device) -> Tensor:
    """Where each pixel of the result comes from: (H, W, 2), as `grid_sample` counts. A level has only two arguments, kept here."""
    forward = _FORWARD[name](torch.tensor([argument], dtype=torch.float32), width, height)
    linear, shift = (
        forward[:, :, :2],
        forward[:, :, 2:],
    )  # from places in the picture to places in the result, in pixels
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float32), torch.arange(width, dtype=torch.float32), indexing="ij"
    )
    targets = torch.stack((columns.flatten(), rows.flatten()))  # (2, H*W)
    sources = (torch.linalg.inv(linear) @ (targets[None] - shift)).view(2, height, width)
    extent = torch.tensor([max(width - 1, 1), max(height - 1, 1)], dtype=torch.float32)
    grid: Tensor = sources.permute(1, 2, 0) * (2 / extent) - 1
    return grid.contiguous().to(device)
