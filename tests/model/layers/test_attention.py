"""Attention over pictures shares keys and values without changing what any text reads."""

from __future__ import annotations

import pytest
import torch

from model.layers.attention import FusedAttention, SplitAttention, causal_mask


def test_texts_of_one_picture_read_it_as_if_each_were_alone() -> None:
    torch.manual_seed(0)
    attention = SplitAttention(12, 3, context_width=8)
    pictures, texts = torch.randn(3, 5, 8), torch.randn(3 * 2 + 4, 7, 12)
    strays = torch.tensor([2, 0, 2, 1])
    together = attention.over_pictures(texts, pictures, strays)
    owner = torch.cat([torch.arange(3).repeat_interleave(2), strays])
    apart = torch.cat(
        [attention.over_pictures(texts[row : row + 1], pictures[owner[row : row + 1]]) for row in range(len(texts))]
    )
    torch.testing.assert_close(together, apart)


def test_hidden_tokens_change_nothing() -> None:
    torch.manual_seed(0)
    attention, states = SplitAttention(8, 2), torch.randn(2, 6, 8)
    mask = torch.arange(6)[None] < torch.tensor([4, 6])[:, None]
    changed = torch.where(mask[:, :, None], states, torch.randn(2, 6, 8))
    found = attention(states, mask)[mask]
    torch.testing.assert_close(found, attention(changed, mask)[mask])
    assert not torch.allclose(attention(states)[mask], attention(changed)[mask])


def test_fused_attention_equals_its_split_form() -> None:
    torch.manual_seed(0)
    fused, split, states = FusedAttention(8, 2), SplitAttention(8, 2), torch.randn(2, 5, 8)
    weights = dict(zip(("query", "key", "value"), fused.qkv.weight.chunk(3), strict=True))
    biases = dict(zip(("query", "key", "value"), fused.qkv.bias.chunk(3), strict=True))
    split.load_state_dict(
        {f"{name}.weight": value for name, value in weights.items()}
        | {f"{name}.bias": value for name, value in biases.items()}
        | {"out.weight": fused.out.weight, "out.bias": fused.out.bias}
    )
    torch.testing.assert_close(fused(states), split(states))


def test_dropout_only_acts_in_training() -> None:
    attention, states = SplitAttention(8, 2, dropout=0.5), torch.randn(1, 5, 8)
    attention.eval()
    assert torch.equal(attention(states), attention(states))
    attention.train()
    assert not torch.equal(attention(states), attention(states))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="10 does not divide into 3 heads"):
        FusedAttention(10, 3)


def test_parts_of_a_picture_that_may_not_be_seen_change_nothing() -> None:
    torch.manual_seed(0)
    attention = SplitAttention(8, 2, context_width=6)
    pictures, texts = torch.randn(2, 5, 6), torch.randn(2 * 2 + 1, 3, 8)
    strays = torch.tensor([1])
    shown = torch.tensor([[True, True, True, False, False], [True, True, True, True, False]])
    changed = torch.where(shown[:, :, None], pictures, torch.randn(2, 5, 6))
    found = attention.over_pictures(texts, pictures, strays, picture_mask=shown)
    torch.testing.assert_close(found, attention.over_pictures(texts, changed, strays, picture_mask=shown))
    assert not torch.allclose(found, attention.over_pictures(texts, pictures, strays))


def test_a_causal_mask_shows_the_real_tokens_up_to_the_own() -> None:
    seen = causal_mask(torch.tensor([[True, True, False]]))
    assert seen.tolist() == [[[True, False, False], [True, True, False], [True, True, False]]]
