"""The momentum twin: a frozen copy of the student that follows it slowly and teaches it."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def frozen_twin(student: ModuleT) -> ModuleT:
    """Copy a module with its present weights; the copy takes no gradient."""
    twin = deepcopy(student)
    twin.requires_grad_(False)
    return twin


@torch.no_grad()
def follow(twin: nn.Module, student: nn.Module, *, momentum: float) -> None:
    """Move every parameter of the twin a little towards the student's: m = momentum * m + (1 - momentum) * p.

    Parameters only: these models hold no buffer that training changes (no batch norm). Two multi-tensor calls, so there is
    no launch per parameter; not `lerp`, whose rounding differs from the published update.
    """
    following: list[Tensor] = list(twin.parameters())
    torch._foreach_mul_(following, momentum)
    torch._foreach_add_(following, [parameter.detach() for parameter in student.parameters()], alpha=1.0 - momentum)
