"""Position tables: what must hold for any size."""

from __future__ import annotations

import pytest
import torch

from model.positions import resize_positions, sincos_positions


def test_resizing_keeps_the_class_row_and_a_constant_table() -> None:
    table = torch.randn(1, 1 + 9, 4)
    resized = resize_positions(table, 5)
    assert resized.shape == (1, 26, 4)
    assert torch.equal(resized[:, 0], table[:, 0])
    torch.testing.assert_close(resize_positions(torch.full((1, 10, 4), 0.3), 5), torch.full((1, 26, 4), 0.3))


def test_resizing_follows_both_axes() -> None:
    ramp = torch.arange(4.0).expand(4, 4)
    table = torch.stack([ramp, ramp.t()], dim=2).reshape(1, 16, 2)
    resized = resize_positions(torch.cat([torch.zeros(1, 1, 2), table], dim=1), 8)[0, 1:].view(8, 8, 2)
    assert torch.equal(resized[..., 0], resized[..., 1].t())
    assert (resized[0, 1:, 0] > resized[0, :-1, 0]).all()


def test_a_table_of_no_square_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        resize_positions(torch.zeros(1, 1 + 7, 4), 3)


def test_every_patch_has_its_own_sine_cosine_row() -> None:
    table = sincos_positions(16, 6)
    assert torch.equal(table[0], torch.zeros(16))
    assert torch.cdist(table[1:], table[1:]).fill_diagonal_(1).min() > 0.1
    with pytest.raises(ValueError, match="divisible by 4"):
        sincos_positions(10, 3)
