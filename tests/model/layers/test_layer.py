"""Options of layers change what they cost, and no number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.layers.layer import checkpoint_activations, compile_layers
from model.layers.transformer import PostNormLayer, PreNormLayer


def _gradients(module: nn.Module, run: Callable[[], Tensor]) -> list[Tensor]:
    module.zero_grad(set_to_none=True)
    torch.manual_seed(3)  # dropout
    torch.autograd.backward(run().square().sum())
    return [value.grad.clone() for value in module.parameters() if value.grad is not None]


def _kept_bytes(run: Callable[[], Any]) -> int:
    """Bytes of the distinct tensors that autograd itself keeps for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(kept.values())


@pytest.mark.parametrize("kind", ["picture", "text"])
def test_checkpointed_activations_give_equal_gradients_and_keep_less(kind: str) -> None:
    torch.manual_seed(0)
    states, picture = torch.randn(3, 9, 12, requires_grad=True), torch.randn(3, 5, 8)
    layers: list[nn.Module]
    if kind == "picture":
        layers = [PreNormLayer(12, 2, 24) for _ in range(2)]
        arguments: tuple[Any, ...] = ()
    else:
        layers = [PostNormLayer(12, 2, 24, picture_width=8, dropout=0.3) for _ in range(2)]
        arguments = (torch.ones(3, 9, dtype=torch.bool), picture)
    tower = nn.ModuleList(layers).train()

    def run() -> Tensor:
        out: Tensor = states
        for layer in tower:
            out = layer(out, *arguments)
        return out

    plain, kept = _gradients(tower, run), _kept_bytes(run)
    checkpoint_activations(tower)
    assert all(torch.equal(one, other) for one, other in zip(plain, _gradients(tower, run), strict=True))
    assert _kept_bytes(run) < kept / 4
    checkpoint_activations(tower, on=False)
    assert _kept_bytes(run) == kept


def test_compiled_layers_give_equal_gradients_and_are_compiled_once_for_all_alike() -> None:
    torch.manual_seed(0)
    tower = nn.Sequential(*(PreNormLayer(12, 2, 24) for _ in range(3)))
    states = torch.randn(3, 9, 12, requires_grad=True)
    plain = _gradients(tower, lambda: tower(states))
    torch._dynamo.reset()
    compile_layers(tower, backend="aot_eager")
    torch._dynamo.utils.counters.clear()
    for one, other in zip(plain, _gradients(tower, lambda: tower(states)), strict=True):
        torch.testing.assert_close(one, other)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_module_without_layers_cannot_checkpoint() -> None:
    with pytest.raises(ValueError, match="Linear has no layers"):
        checkpoint_activations(nn.Linear(2, 2))
