from __future__ import annotations

import pytest
import torch

from model.examples import Example, Paired, stack_images


def pairs() -> tuple[Example, ...]:
    pictures = torch.arange(2 * 2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 2, 3, 4, 4)
    return tuple(Paired(key=str(number), text="", images=tuple(each)) for number, each in enumerate(pictures))


def is_shared(tensor: torch.Tensor) -> bool:
    return bool(tensor.untyped_storage().is_shared())


def test_pictures_are_stacked_by_their_position() -> None:
    stacked = stack_images(pairs(), 1)
    assert (stacked.shape, stacked.dtype) == ((2, 3, 4, 4), torch.uint8)
    assert torch.equal(stacked[1], pairs()[1].images[1])


def test_a_loader_worker_stacks_into_memory_that_its_parent_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_shared(stack_images(pairs()))
    monkeypatch.setattr(torch.utils.data, "get_worker_info", object)
    shared = stack_images(pairs())
    assert is_shared(shared)
    assert torch.equal(shared[0], pairs()[0].images[0])
