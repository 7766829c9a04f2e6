"""Maps of where a text is seen, and the choice among boxes by them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.families.vicha.grounding import (
    contrast_attention,
    contrast_maps,
    enlarge,
    match_attention,
    match_maps,
    rank_boxes,
)
from model.families.vicha.model import Vicha
from model.family import Embed


@pytest.fixture
def family(tiny_family: Any) -> Vicha:
    family: Vicha = tiny_family()
    return family.eval()


@pytest.fixture
def batch(tiny_processor: Any, pairs: Any) -> Any:
    return tiny_processor()(pairs(3), [0, 1, 2], train=False)


def test_maps_have_one_value_per_patch_and_shares_sum_to_one(family: Vicha, batch: Any) -> None:
    grid = family.student.image.grid
    for maps in (match_maps(family, batch), contrast_maps(family, batch)):
        assert maps.shape == (3, grid, grid)
        assert bool((maps >= 0).all())
        assert float(maps.sum()) > 0
    for found in (match_attention(family, batch), contrast_attention(family, batch)):
        torch.testing.assert_close(found.weights.sum(3), torch.ones(found.weights.shape[:3]))


def test_maps_leave_no_trace_in_the_family_and_need_no_trainable_weights(family: Vicha, batch: Any) -> None:
    expected = match_maps(family, batch), contrast_maps(family, batch)
    assert all(value.grad is None for value in family.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in family.modules())
    family.requires_grad_(False)
    with torch.no_grad():  # as evaluation runs
        found = match_maps(family, batch), contrast_maps(family, batch)
    assert all(torch.equal(*maps) for maps in zip(found, expected, strict=True))


def test_the_gradient_is_the_change_of_the_score_by_the_shares(family: Vicha, batch: Any) -> None:
    """Moved by hand: the values that a share weighs, times a small step, change the score by step times gradient."""
    family.double()
    patches: Any = family.student.image.patches
    patches.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    found = contrast_attention(family, batch, layer=0)
    attention: Any = family.student.image.layers[0].attention
    step, row, head, query, key = 1e-6, 1, 0, 0, 3
    values: list[Any] = []
    attention.qkv.register_forward_hook(lambda _, __, output: values.append(output.chunk(3, dim=2)[2]))
    push = [0.0]

    def mix(_: Any, inputs: Any) -> Any:
        width = values[-1].shape[2] // attention.heads
        moved = inputs[0].clone()
        part = slice(head * width, (head + 1) * width)
        moved[row, query, part] += push[0] * values[-1][row, key, part]
        return (moved,)

    attention.out.register_forward_pre_hook(mix)

    def score() -> float:
        embedded = family.predict(batch, Embed())
        return float((embedded.image_features * embedded.text_features).sum() / family.temperature.detach())

    push[0] = step
    above = score()
    push[0] = -step
    change = (above - score()) / (2 * step)
    assert change == pytest.approx(float(found.gradient[row, head, query, key]), rel=1e-5)


def test_a_layer_that_reads_no_picture_is_refused_with_those_that_do(family: Vicha, batch: Any) -> None:
    with pytest.raises(ValueError, match="layer 0 reads no picture; choose one of 2 to 2"):
        match_attention(family, batch, layer=0)
    with pytest.raises(ValueError, match="no picture layer 3; choose one of 0 to 2"):
        contrast_attention(family, batch, layer=3)


def test_the_box_that_holds_most_per_root_of_its_area_is_best() -> None:
    relevance = torch.zeros(8, 8)
    relevance[2:4, 2:4] = 1.0
    found = rank_boxes(relevance, [(0, 0, 8, 8), (2, 2, 2, 2), (5, 5, 2, 2)])
    assert found.best == 1
    torch.testing.assert_close(found.scores, torch.tensor([0.5, 2.0, 0.0]))


def test_boxes_are_cut_to_the_picture_and_to_whole_pixels() -> None:
    relevance = torch.ones(4, 4)
    found = rank_boxes(relevance, [(-2.0, -2.0, 4.0, 4.0), (1.9, 1.9, 1.0, 1.0), (3.0, 3.0, 10.0, 10.0)])
    torch.testing.assert_close(found.scores, torch.tensor([4 / 4, 1.0, 1 / 10]))


def test_no_box_is_chosen_where_none_holds_anything() -> None:
    assert rank_boxes(torch.zeros(4, 4), [(0, 0, 2, 2)]).best is None
    assert rank_boxes(torch.ones(4, 4), []).best is None


def test_a_box_without_area_is_named() -> None:
    with pytest.raises(ValueError, match="box 1 has width 0"):
        rank_boxes(torch.ones(4, 4), [(0, 0, 2, 2), (0, 0, 0, 2)])


def test_a_map_is_enlarged_to_the_pictures_own_shape() -> None:
    large = enlarge(torch.eye(4)[None], height=10, width=20)
    assert large.shape == (1, 10, 20)
    assert large[0, 0, 0] > large[0, 0, -1]
