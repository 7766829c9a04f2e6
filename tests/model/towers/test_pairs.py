"""Pairs of fusion layers: who reads which picture, and what is shared."""

from __future__ import annotations

import torch

from model.towers.pairs import PairFusionTower
from model.towers.text import TextConfig

CONFIG = TextConfig(
    vocab_size=12, width=8, layers=4, fusion_layer=2, heads=2, mlp_width=16, max_positions=8, dropout=0.0
)


def _tower() -> PairFusionTower:
    torch.manual_seed(0)
    return PairFusionTower(CONFIG, picture_width=6)


def test_assigned_pictures_are_read_as_if_each_text_had_brought_them() -> None:
    tower, pictures, texts = _tower(), torch.randn(4, 5, 6), torch.randn(3, 7, 8)
    mask = torch.ones(3, 7, dtype=torch.bool)
    assigned = torch.tensor([[0, 3], [2, 1], [3, 3]])
    found = tower(texts, mask, pictures, pictures, assigned=assigned)
    own = tower(texts, mask, pictures[assigned[:, 0]], pictures[assigned[:, 1]])
    torch.testing.assert_close(found, own)
    assert not torch.allclose(found, tower(texts, mask, pictures, pictures, assigned=assigned.flip(1)))


def test_keys_and_values_of_a_pair_are_one_matrix_and_counted_once() -> None:
    tower = _tower()
    names = {name for name, _ in tower.named_parameters()}
    for first in (0, 2):
        for part in ("key.weight", "value.bias"):
            assert f"layers.{first}.cross_attention.{part}" in names
            assert f"layers.{first + 1}.cross_attention.{part}" not in names
        assert f"layers.{first + 1}.cross_attention.query.weight" in names
