"""RandAugment on the device gives what workers give, from the same draws."""

from __future__ import annotations

import dataclasses
from typing import Self

import numpy as np
import pytest
import torch
from torch import Tensor

from trainers.arrival import Deferred, Unaugmented, arrived, unaugmented
from trainers.rand_augment import Operation, RandAugmentConfig, augment, draw_operations


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    pixels: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        return dataclasses.replace(self, pixels=self.pixels.to(device))

    def __len__(self) -> int:
        return len(self.pixels)


def some(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@pytest.mark.parametrize("shape", [(8, 3, 24, 24), (4, 2, 3, 24, 24)], ids=["one picture each", "two pictures each"])
def test_a_batch_is_augmented_where_it_arrives_as_its_pictures_are_one_by_one(shape: tuple[int, ...]) -> None:
    pixels = some(*shape)
    drawn = [draw_operations(RandAugmentConfig(count=3), np.random.default_rng(number)) for number in range(8)]
    each = 8 // len(pixels)
    deferred = [Deferred(operations=tuple(drawn[each * n : each * n + each])) for n in range(len(pixels))]
    sent = unaugmented(Pictures(pixels=pixels), deferred)
    assert len(sent) == len(pixels)
    there = arrived(sent.to("cpu"))
    assert isinstance(there, Pictures)
    assert there.pixels.shape == pixels.shape
    for picture, found, operations in zip(pixels.flatten(0, -4), there.pixels.flatten(0, -4), drawn, strict=True):
        alone = augment(picture[None], [operations])[0]
        assert (found.int() - alone.int()).abs().max() <= 1


def test_a_batch_without_draws_travels_as_it_is() -> None:
    batch = Pictures(pixels=some(2, 3, 8, 8))
    assert unaugmented(batch, [Deferred(), Deferred(operations=((),))]) is batch
    assert arrived(batch) is batch


def test_the_published_slips_travel_along() -> None:
    drawn = ((Operation(name="Sharpness", argument=1.9),),)
    pixels = some(1, 3, 12, 12)
    sent = unaugmented(Pictures(pixels=pixels), [Deferred(operations=drawn, faithful=True)])
    assert isinstance(sent, Unaugmented)
    there = arrived(sent)
    assert isinstance(there, Pictures)
    assert torch.equal(there.pixels, augment(pixels, drawn, faithful=True))


def test_draws_for_another_number_of_pictures_are_refused() -> None:
    drawn = ((Operation(name="Equalize"),),) * 3
    with pytest.raises(ValueError, match="one list per picture"):
        arrived(unaugmented(Pictures(pixels=some(2, 3, 8, 8)), [Deferred(operations=drawn)]))
