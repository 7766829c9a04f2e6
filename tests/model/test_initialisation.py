"""Weights drawn by Glorot's rule: matrices follow their own size, everything else stays."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from model.initialisation import xavier_matrices


@pytest.mark.parametrize(
    ("layer", "fan"), [(nn.Linear(64, 192), 64 + 192), (nn.Conv2d(3, 128, 8, stride=8), 3 * 8 * 8 + 128)]
)
def test_a_matrix_is_drawn_by_its_own_size(layer: nn.Linear | nn.Conv2d, fan: int) -> None:
    torch.manual_seed(0)
    nn.init.zeros_(layer.weight)
    xavier_matrices(layer)
    assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / fan), rel=0.05)
    assert float(layer.weight.detach().abs().max()) <= math.sqrt(6 / fan)


def test_biases_norms_and_embeddings_stay() -> None:
    module = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8), nn.LayerNorm(8))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    xavier_matrices(module)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"1.weight"}
