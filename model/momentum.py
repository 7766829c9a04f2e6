"""The momentum twin: a frozen copy of the student that follows it slowly and teaches it."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def frozen_twin(student: ModuleT) -> ModuleT:
    """Copy a module with its present weights; the copy takes no gradient."""
    twin = deepcopy(student)
    twin.requires_grad_(False)
    return twin


@torch.no_grad()
def follow(twin: nn.Module, student: nn.Module, *, momentum: float) -> None:
    """Move every parameter of the twin a little towards the student's: m = momentum * m + (1 - momentum) * p.

    Parameters only: these models hold no buffer that training changes (no batch norm). Written m + (1 - momentum) * (p - m),
    which is one pass over memory and leaves a twin that has arrived where it is; the published two passes differ by the
    last bit.
    """
    pairs = [_alike(own, led) for own, led in zip(twin.parameters(), student.parameters(), strict=True)]
    torch._foreach_lerp_([own for own, _ in pairs], [led for _, led in pairs], 1.0 - momentum)


def _alike(own: Tensor, led: Tensor) -> tuple[Tensor, Tensor]:
    """Two parameters as plain tensors of one size: this process's shards where both are spread alike, else both whole."""
    if not isinstance(led, DTensor):
        return own, led.detach()
    return (own.to_local(), led.to_local()) if isinstance(own, DTensor) else (own, led.full_tensor())
