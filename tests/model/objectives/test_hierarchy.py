"""Hierarchical alignment: who learns in which direction, and what is refused."""

from __future__ import annotations

import pytest
import torch

from model.objectives.hierarchy import HierarchicalAlignment, HierarchyConfig


def _aligned(**settings: object) -> HierarchicalAlignment:
    torch.manual_seed(0)
    config = HierarchyConfig.model_validate({"layers": 2, **settings})
    return HierarchicalAlignment(config, image_width=6, text_width=5, projection=4)


def test_layers_count_by_their_weights() -> None:
    images, texts = torch.randn(2, 3, 6), torch.randn(2, 3, 5)
    temperature = torch.tensor(0.1)
    found = _aligned(layer_weights=[2.0, 0.5])(list(images), list(texts), temperature=temperature)
    torch.testing.assert_close(found.loss, 2.0 * found.layer_losses[0] + 0.5 * found.layer_losses[1])


def test_a_layer_without_weight_learns_nothing() -> None:
    align = _aligned(layer_weights=[0.0, 1.0])
    align(list(torch.randn(2, 3, 6)), list(torch.randn(2, 3, 5)), temperature=torch.tensor(0.1)).loss.backward()
    assert align.image_projections[0].weight.grad.norm() == 0
    assert align.image_projections[1].weight.grad.norm() > 0
    assert align.text_projections[1].weight.grad.norm() > 0


def test_missing_layers_and_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="1 picture layers and 2 text layers given where 2"):
        _aligned()([torch.randn(3, 6)], list(torch.randn(2, 3, 5)), temperature=torch.tensor(0.1))
    with pytest.raises(ValueError, match="3 weights for 2 layers"):
        _aligned(layer_weights=[1, 1, 1])
