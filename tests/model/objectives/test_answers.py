"""The loss of an answer is the sum over its tokens, padding left out, and soft targets mix in by their share."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from model.objectives.answers import answer_losses, answer_texts

IDS = torch.tensor([[2, 7, 3, 0, 0], [2, 5, 6, 8, 3]])


def test_positions_predict_the_token_that_follows_and_padding_is_left_out() -> None:
    texts = answer_texts(IDS, IDS != 0)
    assert texts.targets.tolist() == [7, 3, 5, 6, 8, 3]
    assert texts.owners().tolist() == [0, 0, 1, 1, 1, 1]
    assert IDS.flatten()[texts.positions].tolist() == [2, 7, 2, 5, 6, 8]


def test_losses_are_summed_by_answer() -> None:
    torch.manual_seed(0)
    texts, logits = answer_texts(IDS, IDS != 0), torch.randn(6, 10)
    found = answer_losses(logits, texts, None, soften=0.0)
    each = cross_entropy(logits, texts.targets, reduction="none")
    torch.testing.assert_close(found, torch.stack([each[:2].sum(), each[2:].sum()]))


def test_a_twin_that_agrees_with_the_student_leaves_its_entropy() -> None:
    torch.manual_seed(0)
    texts, logits = answer_texts(IDS, IDS != 0), torch.randn(6, 10)
    entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
    found = answer_losses(logits, texts, logits, soften=1.0)
    torch.testing.assert_close(found, torch.stack([entropy[:2].sum(), entropy[2:].sum()]))
    half = answer_losses(logits, texts, logits, soften=0.5)
    torch.testing.assert_close(half, (found + answer_losses(logits, texts, None, soften=0.0)) / 2)
