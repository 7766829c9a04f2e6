"""RandAugment on the device: workers draw and send the draws along, and whole batches are augmented where they arrive."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from model.family import Batch
from trainers.rand_augment import Operation, augment


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """What is still to be done to each picture of an example, in the order in which the task asked for them."""

    operations: tuple[tuple[Operation, ...], ...] = ()
    faithful: bool = False  # see `RandAugmentConfig`


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Unaugmented:
    """A batch on its way to the device, where `arrived` does what was drawn for its pictures. Itself a `Batch`."""

    batch: Batch
    operations: tuple[tuple[Operation, ...], ...]  # one entry per picture of the batch's `pixels`, in their order
    faithful: bool

    def __len__(self) -> int:
        return len(self.batch)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        return dataclasses.replace(self, batch=self.batch.to(device, non_blocking=non_blocking))


def unaugmented(batch: Batch, deferred: Sequence[Deferred]) -> Batch:
    """Send along with a batch what is still to be done to its examples' pictures; the batch itself where that is nothing."""
    operations = tuple(drawn for each in deferred for drawn in each.operations)
    if not any(operations):
        return batch
    return Unaugmented(batch=batch, operations=operations, faithful=any(each.faithful for each in deferred))


def arrived(batch: Batch) -> Batch:
    """Do what was sent along with a batch that has been moved to its device.

    Raises:
        ValueError: the batch holds another number of pictures than were drawn for.
    """
    if not isinstance(batch, Unaugmented):
        return batch
    inner: Any = (
        batch.batch
    )  # a family's own dataclass, whose `pixels` are (B, 3, R, R) or (B, pictures, 3, R, R) uint8
    pixels: Tensor = inner.pixels
    pictures = augment(pixels.flatten(0, -4), batch.operations, faithful=batch.faithful)
    done: Batch = dataclasses.replace(inner, pixels=pictures.view_as(pixels))
    return done
