"""What every layer can be asked for, whatever it computes: to keep less for the backward pass, and to be compiled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Layers share the code that is compiled; each kind of layer, width and shape of input counts as one version of it. Beyond
# torch's default of eight, further versions would silently run uncompiled.
COMPILED_VERSIONS = 64


class Layer(nn.Module):
    """A layer that may forget what happened inside it and compute it again in the backward pass (activation checkpointing).

    The second time draws the same dropout, so gradients are the same bit for bit.
    """

    checkpoints_activations = False

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Run the layer; see `run` for what it takes."""
        if self.checkpoints_activations and torch.is_grad_enabled():
            again: Tensor = checkpoint(self.run, *inputs, use_reentrant=False, **named)
            return again
        return self.run(*inputs, **named)

    def run(self, *inputs: Any, **named: Any) -> Tensor:
        """What the layer computes."""
        raise NotImplementedError


def checkpoint_activations(module: nn.Module, *, on: bool = True) -> None:
    """Let every layer of a module keep only its input for the backward pass, or all of it again.

    Raises:
        ValueError: there is no layer that could.
    """
    for layer in layers_of(module):
        layer.checkpoints_activations = on


def compile_layers(module: nn.Module, *, backend: str = "inductor") -> None:
    """Compile every layer of a module, one at a time when it is first called.

    Equal layers share what is compiled, which takes seconds where a whole step takes many minutes; what lies between layers
    (losses, queues, the twin's update) is a small part of a step and stays as it is.

    Raises:
        ValueError: there is no layer to compile.
    """
    torch._dynamo.config.recompile_limit = max(COMPILED_VERSIONS, torch._dynamo.config.recompile_limit)
    for layer in layers_of(module):
        layer.compile(backend=backend)


def layers_of(module: nn.Module) -> list[Layer]:
    """Find every layer of a module.

    Raises:
        ValueError: there is none.
    """
    found = [part for part in module.modules() if isinstance(part, Layer)]
    if not found:
        raise ValueError(
            f"{type(module).__name__} has no layers that could be compiled or checkpoint their activations; leave both off"
        )
    return found
