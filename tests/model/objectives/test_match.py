"""Hard negatives are drawn from other pictures only, in proportion, and never crash on odd batches."""

from __future__ import annotations

import pytest
import torch

from model.objectives.contrast import same_picture
from model.objectives.match import draw_negatives, match_loss


def test_a_negative_never_shows_the_same_picture() -> None:
    torch.manual_seed(0)
    same = same_picture(torch.tensor([1, 2, 1, -1, -1]))
    for _ in range(200):
        similarity = torch.randn(5, 9) * 10
        drawn = draw_negatives(similarity, similarity.flip(1), same=same, noise=torch.rand(5, 2))
        rows = torch.arange(5)
        assert not same[rows, drawn.images].any()
        assert not same[rows, drawn.texts].any()


def test_pictures_are_drawn_as_often_as_their_weights_say() -> None:
    similarity = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    noise = (torch.arange(2000) + 0.5) / 2000
    chosen = [
        draw_negatives(similarity, similarity, same=torch.eye(3).bool(), noise=u.expand(3, 2)).images[0].item()
        for u in noise
    ]
    assert chosen.count(2) / 2000 == pytest.approx(torch.tensor([1.0, 2.0]).softmax(0)[1].item(), abs=1e-3)
    assert chosen.count(0) == 0


def test_where_the_own_pair_takes_all_weight_any_other_is_drawn() -> None:
    similarity = torch.eye(3) * 1000
    noise = torch.tensor([[0.1, 0.9]] * 3)
    drawn = draw_negatives(similarity, similarity, same=torch.eye(3).bool(), noise=noise)
    assert (drawn.images != torch.arange(3)).all()
    assert (drawn.texts != torch.arange(3)).all()
    assert drawn.images[2] != drawn.texts[2]


def test_a_batch_of_one_picture_counts_its_positives_alone() -> None:
    same = torch.ones(2, 2).bool()
    drawn = draw_negatives(torch.randn(2, 2), torch.randn(2, 2), same=same, noise=torch.rand(2, 2))
    assert not drawn.usable.any()
    logits = torch.randn(6, 2)
    expected = torch.nn.functional.cross_entropy(logits[:2], torch.ones(2).long())
    torch.testing.assert_close(match_loss(logits, drawn.usable), expected)
