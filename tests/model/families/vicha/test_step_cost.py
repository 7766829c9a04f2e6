"""A step computes nothing twice that it could keep, and never waits for the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from model.family import Progress

LATER = Progress(step=10, steps_per_epoch=5)
# What hands values of a tensor to Python, or makes a tensor whose size depends on them.
WAITS = (
    "aten._local_scalar_dense",
    "aten.nonzero",
    "aten.masked_select",
    "aten.unique",
    "aten.equal",
    "aten.is_nonzero",
)


class _Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the operations that would wait for an accelerator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        by_truth = name.startswith("aten.index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in (args[1] if isinstance(args[1], list | tuple) else ())
        )
        if name.startswith(WAITS) or by_truth:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def batch(tiny_processor: Any, pairs: Any) -> Any:
    return tiny_processor()(pairs(), list(range(6)))


@pytest.fixture
def counted() -> Callable[[nn.Module], Counter[str]]:
    """Count calls of every module of a model by name, and the rows that the first input of each call holds."""

    def count(model: nn.Module) -> Counter[str]:
        calls: Counter[str] = Counter()

        def hook(name: str) -> Callable[..., None]:
            def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
                calls[name] += 1
                if inputs and isinstance(inputs[0], torch.Tensor):
                    calls[f"{name}:rows"] += len(inputs[0])

            return note

        for name, module in model.named_modules():
            module.register_forward_pre_hook(hook(name))
        return calls

    return count


def test_a_step_never_waits_for_the_device(tiny_family: Any, batch: Any) -> None:
    family = tiny_family().train()
    with _Waits() as waits:
        torch.autograd.backward(family(batch, LATER).total)
    assert waits.found == []
    with _Waits() as waits:
        batch.text_ids[batch.text_mask].sum().item()
    assert [name.partition(".")[2].partition(".")[0] for name in waits.found] == ["index", "_local_scalar_dense"]


def test_pictures_are_turned_into_keys_and_values_once_per_fusion_layer(
    tiny_family: Any, batch: Any, counted: Any
) -> None:
    family = tiny_family().train()
    calls = counted(family)
    family(batch, LATER)
    for side in ("student", "twin"):
        for part in ("key", "value"):
            name = f"{side}.fusion.layers.0.cross_attention.{part}"
            assert (calls[name], calls[f"{name}:rows"]) == (1, len(batch))
    # Pairs, drawn pictures, drawn texts and masked texts in one pass; the twin reads masked texts alone.
    assert calls["student.fusion.layers.0:rows"] == 4 * len(batch)
    assert calls["twin.fusion.layers.0:rows"] == len(batch)


def test_texts_and_their_masked_versions_are_read_in_one_pass_and_patches_are_cut_once(
    tiny_family: Any, batch: Any, counted: Any
) -> None:
    family = tiny_family().train()
    calls = counted(family)
    family(batch, LATER)
    for side in ("student", "twin"):
        assert (calls[f"{side}.text"], calls[f"{side}.text:rows"]) == (1, 2 * len(batch))
        assert calls[f"{side}.image.patches"] == 1
    # Words are predicted where some are hidden, and nowhere else.
    assert calls["student.words:rows"] == calls["twin.words:rows"] == len(batch.masked_positions)


def test_without_soft_targets_the_twin_reads_no_masked_texts(tiny_family: Any, batch: Any, counted: Any) -> None:
    family = tiny_family().train()
    calls = counted(family)
    family(batch, Progress(step=0, steps_per_epoch=5))
    assert calls["twin.text:rows"] == len(batch)
    assert calls["twin.fusion"] == calls["twin.words"] == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_never_waits_for_a_cuda_device(tiny_family: Any, batch: Any) -> None:
    family, there = tiny_family().cuda().train(), batch.to("cuda")
    torch.autograd.backward(family(there, LATER).total)  # libraries set themselves up
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            losses = family(there, LATER)
        torch.autograd.backward(losses.total)
    finally:
        torch.cuda.set_sync_debug_mode("default")
