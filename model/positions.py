"""Position tables of square patch grids: resizing learned ones, and the fixed sine-cosine one."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def resize_positions(table: Tensor, grid: int) -> Tensor:
    """Resize a learned position table to another grid; the class token's row stays.

    Args:
        table: (1, 1 + g * g, D), row 0 for the class token, then the patches row by row.
        grid: patches per side wanted.

    Returns:
        (1, 1 + grid * grid, D); the very same tensor where the grid is the same.

    Raises:
        ValueError: the table does not belong to a square grid.
    """
    old = math.isqrt(table.shape[1] - 1)
    if table.ndim != 3 or old * old != table.shape[1] - 1:
        raise ValueError(
            f"a position table of shape {tuple(table.shape)} is not one of a class token and a square grid of patches; "
            "import a checkpoint of a square image size"
        )
    if old == grid:
        return table
    square = table[:, 1:].transpose(1, 2).reshape(1, -1, old, old).float()
    resized = interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


def sincos_positions(width: int, grid: int) -> Tensor:
    """Build the fixed table of masked autoencoders (He et al., 2022): half the channels for x, half for y.

    Args:
        width: channels; must be divisible by four.
        grid: patches per side.

    Returns:
        (1 + grid * grid, width) float32; row 0 (the class token) is zero.

    Raises:
        ValueError: the width is not divisible by four.
    """
    if width % 4:
        raise ValueError(f"a sine-cosine position table needs a width divisible by 4, not {width}")
    quarter = width // 4
    # Double precision until the end: at width 768 the lowest frequencies differ in single precision.
    frequency = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * frequency  # (grid, quarter)
    along = torch.cat([angle.sin(), angle.cos()], dim=1)  # (grid, width / 2)
    columns = along[None].expand(grid, grid, -1)
    rows = along[:, None].expand(grid, grid, -1)
    patches = torch.cat([columns, rows], dim=2).reshape(grid * grid, width)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), patches]).float()
