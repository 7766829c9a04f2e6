"""Masked words: an empty batch is harmless."""

from __future__ import annotations

import pytest
import torch

from model.objectives.masked_text import MaskedTextConfig, masked_text


@pytest.mark.parametrize("soften", [0.0, 0.4])
def test_nothing_to_predict_is_a_zero_loss_with_a_zero_gradient(soften: float) -> None:
    states, matrix = torch.zeros(0, 4), torch.randn(4, 9, requires_grad=True)
    twin = torch.zeros(0, 9) if soften else None
    found = masked_text(states @ matrix, torch.zeros(0, dtype=torch.long), twin, soften=soften)
    found.loss.backward()
    assert found.loss.item() == 0
    assert matrix.grad is not None
    assert torch.equal(matrix.grad, torch.zeros(4, 9))


def test_a_twin_of_one_mind_with_the_labels_changes_nothing() -> None:
    logits, targets = torch.randn(5, 9), torch.tensor([1, 0, 8, 3, 3])
    sure = torch.nn.functional.one_hot(targets, 9).float() * 1e4
    torch.testing.assert_close(
        masked_text(logits, targets, sure, soften=0.4).loss, masked_text(logits, targets, None, soften=0.0).loss
    )


def test_shares_beyond_one_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 1"):
        MaskedTextConfig(mask_share=0.8, random_share=0.3)
