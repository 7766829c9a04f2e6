"""Hierarchical alignment: who learns in which direction, and what is refused."""

from __future__ import annotations

import pytest
import torch

from model.objectives.hierarchy import HierarchicalAlignment, HierarchyConfig
from tests.trainers.ranks import on_ranks
from trainers.distributed import Group


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


def _gradients(group: Group, candidates: str, batch: int) -> list[list[float]]:
    """Mean over ranks of what each layer's weights learn from this rank's share of one global batch."""
    align = _aligned(candidates=candidates)
    draw = torch.Generator().manual_seed(3)
    images, texts = torch.randn(2, batch, 6, generator=draw), torch.randn(2, batch, 5, generator=draw)
    share = slice(group.rank * batch // group.world, (group.rank + 1) * batch // group.world)
    align(list(images[:, share]), list(texts[:, share]), temperature=torch.tensor(0.5)).loss.backward()
    found = []
    for parameter in align.parameters():
        assert parameter.grad is not None
        found.append((group.sum(parameter.grad) / group.world).flatten().tolist())
    return found


@pytest.mark.parametrize("candidates", ["fixed", "learning"])
def test_two_processes_learn_what_one_with_the_whole_batch_learns(candidates: str) -> None:
    expected = _gradients(Group(), candidates, 6)
    for found in on_ranks(_gradients, candidates, 6):
        for one, two in zip(found, expected, strict=True):
            assert one == pytest.approx(two, rel=1e-4, abs=1e-6)


def test_candidates_that_learn_change_the_gradient_and_not_the_loss() -> None:
    fixed, learning = (_gradients(Group(), candidates, 6) for candidates in ("fixed", "learning"))
    assert fixed[0] != pytest.approx(learning[0], rel=1e-2)
    images, texts = list(torch.randn(2, 3, 6)), list(torch.randn(2, 3, 5))
    losses = [
        _aligned(candidates=candidates)(images, texts, temperature=torch.tensor(0.5)).loss
        for candidates in ("fixed", "learning")
    ]
    assert losses[0] == losses[1]
