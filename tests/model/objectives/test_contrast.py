"""Contrast: which candidates are right, and who learns."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, normalize, softmax

from model.feature_queue import FeatureQueue
from model.objectives.contrast import Contrast, contrast, hard_targets, same_picture


def _contrast(
    soften: float = 0.0, identity: torch.Tensor | None = None, queue: int = 4
) -> tuple[Contrast, list[torch.Tensor]]:
    torch.manual_seed(0)
    rows = [normalize(torch.randn(3, 8), dim=1).requires_grad_(place < 2) for place in range(4)]
    found = contrast(
        images=rows[0],
        texts=rows[1],
        twin_images=rows[2],
        twin_texts=rows[3],
        queue=FeatureQueue(8, queue, with_identities=identity is not None),
        temperature=torch.tensor(0.1, requires_grad=True),
        soften=soften,
        identity=identity,
    )
    return found, rows


def test_without_soft_targets_it_is_cross_entropy_over_batch_and_queue() -> None:
    found, _ = _contrast()
    right = torch.arange(3)
    expected = (cross_entropy(found.image_similarity, right) + cross_entropy(found.text_similarity, right)) / 2
    torch.testing.assert_close(found.loss, expected)


def test_targets_always_sum_to_one() -> None:
    for soften in (0.0, 0.3, 1.0):
        found, _ = _contrast(soften)
        torch.testing.assert_close(found.image_targets.sum(1), torch.ones(3))
        torch.testing.assert_close(found.text_targets.sum(1), torch.ones(3))


def test_only_the_student_learns() -> None:
    found, (images, texts, twin_images, twin_texts) = _contrast(0.5)
    torch.autograd.backward(found.loss)
    assert images.grad is not None
    assert texts.grad is not None
    assert twin_images.grad is None
    assert twin_texts.grad is None


def test_gradients_are_those_of_the_written_out_loss_even_if_the_queue_moves_on_first() -> None:
    torch.manual_seed(0)
    images, texts = (normalize(torch.randn(3, 8), dim=1).requires_grad_() for _ in range(2))
    twin_images, twin_texts = (normalize(torch.randn(3, 8), dim=1) for _ in range(2))
    temperature, queue = torch.tensor(0.2, requires_grad=True), FeatureQueue(8, 6)
    leaves = [images, texts, temperature]
    sides = ((images, twin_images, twin_texts, queue.texts), (texts, twin_texts, twin_images, queue.images))
    written = []
    for rows, own, others, columns in sides:
        candidates = torch.cat([others.t(), columns.clone()], dim=1)
        with torch.no_grad():
            targets = 0.6 * torch.eye(3, 9) + 0.4 * softmax(own @ candidates / temperature, dim=1)
        written.append(cross_entropy(rows @ candidates / temperature, targets))
    expected = torch.autograd.grad((written[0] + written[1]) / 2, leaves)
    found = contrast(
        images=images,
        texts=texts,
        twin_images=twin_images,
        twin_texts=twin_texts,
        queue=queue,
        temperature=temperature,
        soften=0.4,
    )
    queue.push(twin_images, twin_texts, torch.full((3,), -1))
    torch.testing.assert_close(found.loss, (written[0] + written[1]) / 2)
    torch.testing.assert_close(torch.autograd.grad(found.loss, leaves), expected)


def test_all_texts_of_a_picture_are_right_in_batch_and_queue() -> None:
    queue = FeatureQueue(8, 4, with_identities=True)
    queue.identities.copy_(torch.tensor([[5, -100, 9, 5]]))
    targets = hard_targets(torch.zeros(3, 7), queue, torch.tensor([5, 9, 5]))
    expected = [[0.25, 0, 0.25, 0.25, 0, 0, 0.25], [0, 0.5, 0, 0, 0, 0.5, 0], [0.25, 0, 0.25, 0.25, 0, 0, 0.25]]
    torch.testing.assert_close(targets, torch.tensor(expected))


def test_pairs_without_identity_are_right_for_themselves_alone() -> None:
    queue = FeatureQueue(8, 2, with_identities=True)
    targets = hard_targets(torch.zeros(2, 4), queue, torch.tensor([-1, -1]))
    assert torch.equal(targets, torch.eye(2, 4))
    assert same_picture(torch.tensor([-1, -1, 3, 3])).tolist() == [
        [True, False, False, False],
        [False, True, False, False],
        [False, False, True, True],
        [False, False, True, True],
    ]


def test_it_works_without_a_queue() -> None:
    found, _ = _contrast(0.4, queue=0)
    assert found.image_similarity.shape == (3, 3)
    assert found.loss.isfinite()
