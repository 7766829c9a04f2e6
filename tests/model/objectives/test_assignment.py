"""Text assignment draws each caption's two pictures as published, and only from others."""

from __future__ import annotations

import pytest
import torch

from model.objectives.assignment import FIRST, NEITHER, SECOND, draw_assignment


def _drawn(batch: int = 6, rows: int = 4000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Many draws of one small batch: own numbers, pictures and labels, flat."""
    torch.manual_seed(0)
    similarity, same = torch.randn(batch, batch), torch.eye(batch, dtype=torch.bool)
    found = [
        draw_assignment(similarity, same=same, noise=torch.rand(batch, 3), neither=1 / 3) for _ in range(rows // batch)
    ]
    own = torch.arange(batch).repeat(len(found))
    return own, torch.cat([each.pictures for each in found]), torch.cat([each.labels for each in found])


def test_the_label_says_where_the_own_picture_is() -> None:
    own, pictures, labels = _drawn()
    assert torch.equal((pictures[:, 0] == own), labels == FIRST)
    assert torch.equal((pictures[:, 1] == own), labels == SECOND)
    assert (pictures[:, 0] != pictures[:, 1]).all()


def test_a_third_of_the_captions_sees_two_others_and_the_rest_are_balanced() -> None:
    _, _, labels = _drawn()
    shares = torch.bincount(labels, minlength=3) / len(labels)
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.03)


def test_other_pictures_are_drawn_by_their_similarity() -> None:
    similarity = torch.log(torch.tensor([[0.0, 6.0, 3.0, 1.0]])).expand(4, 4)
    torch.manual_seed(0)
    counts = torch.zeros(4)
    for _ in range(2000):
        found = draw_assignment(similarity, same=torch.eye(4, dtype=torch.bool), noise=torch.rand(4, 3), neither=0.0)
        counts[found.pictures[0][found.pictures[0] != 0]] += 1
    assert (counts / counts.sum()).tolist() == pytest.approx([0, 0.6, 0.3, 0.1], abs=0.04)


def test_the_same_picture_under_another_number_is_never_another_picture() -> None:
    same = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    for seed in range(50):
        torch.manual_seed(seed)
        found = draw_assignment(torch.randn(4, 4), same=same, noise=torch.rand(4, 3), neither=0.5)
        for row, (pictures, label) in enumerate(zip(found.pictures.tolist(), found.labels.tolist(), strict=True)):
            others = pictures if label == NEITHER else [picture for picture in pictures if picture != row]
            assert not any(same[row, other] for other in others)


def test_two_pictures_are_too_few() -> None:
    with pytest.raises(ValueError, match=r"this part of it has 2; .* at least 3"):
        draw_assignment(torch.zeros(2, 2), same=torch.eye(2, dtype=torch.bool), noise=torch.rand(2, 3), neither=0.5)
