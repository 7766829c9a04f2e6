"""The queue keeps the newest features, whatever the batch size."""

from __future__ import annotations

import torch

from model.feature_queue import EMPTY, FeatureQueue


def _rows(start: int, count: int, width: int = 3) -> torch.Tensor:
    return torch.arange(start, start + count).float()[:, None].expand(count, width)


def _push(queue: FeatureQueue, start: int, count: int) -> None:
    queue.push(_rows(start, count), -_rows(start, count), torch.arange(start, start + count))


def test_batches_that_do_not_divide_the_length_wrap_around() -> None:
    queue = FeatureQueue(3, 8, with_identities=True)
    for start in range(0, 15, 3):
        _push(queue, start, 3)
    newest = set(range(15 - 8, 15))
    assert set(queue.images[0].tolist()) == newest
    assert set((-queue.texts[2]).tolist()) == newest
    assert torch.equal(queue.identities[0].float(), queue.images[1])
    assert queue.pointer.tolist() == [15 % 8]


def test_a_batch_longer_than_the_queue_leaves_its_last_rows() -> None:
    queue = FeatureQueue(3, 4)
    _push(queue, 0, 3)
    _push(queue, 3, 11)
    assert set(queue.images[0].tolist()) == {10, 11, 12, 13}
    assert queue.pointer.tolist() == [14 % 4]
    _push(queue, 14, 1)
    assert set(queue.images[0].tolist()) == {11, 12, 13, 14}


def test_pairs_without_an_identity_stay_unknown() -> None:
    queue = FeatureQueue(3, 4, with_identities=True)
    queue.push(_rows(0, 2), _rows(0, 2), torch.tensor([-1, 7]))
    assert queue.identities.tolist() == [[EMPTY, 7, EMPTY, EMPTY]]


def test_a_queue_of_no_length_takes_nothing() -> None:
    queue = FeatureQueue(3, 0)
    _push(queue, 0, 5)
    assert queue.images.shape == (3, 0)


def test_a_fresh_queue_holds_unit_columns_and_travels_with_the_state() -> None:
    queue = FeatureQueue(16, 10, with_identities=True)
    torch.testing.assert_close(queue.images.norm(dim=0), torch.ones(10))
    assert set(queue.state_dict()) == {"images", "texts", "pointer", "identities"}
