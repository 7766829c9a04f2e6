"""How a family lies on several processes: a copy on each (DDP), or its layers in shards (FSDP2). Same losses either way.

Sharded are the layers of the towers: the elements of every `nn.ModuleList` that are more than one matrix. What is called
otherwise than by a layer's `forward` stays whole on every rank, and its gradients are averaged in one message after the last
micro-batch: embeddings (the output matrix is tied to them), projections, single tokens, the temperature. So a family may read
and change these wherever it likes, and may move its momentum twin, part by part, before its layers run.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from model.feature_queue import FeatureQueue
from shards.config import Config
from shards.errors import ConfigError
from trainers.distributed import Group

Mode = Literal["ddp", "fsdp"]
Placement = Literal["sharded", "replicated"]


class FsdpConfig(Config):
    """What parallel=fsdp shards beside the student's layers."""

    twin: Placement = "sharded"
    """the layers of momentum twins: a shard saves their memory, a copy per rank is one gathering of the student per step"""
    queue: Placement = "replicated"
    """the columns of feature queues: a shard saves their memory, and is gathered where they are compared with"""


class Parallel(Protocol):
    """A family on its processes, as one training step sees it."""

    @property
    def module(self) -> nn.Module:
        """What is called in place of the family."""
        ...

    def exchange(self, *, last: bool) -> AbstractContextManager[object]:
        """Around forward and backward of a micro-batch: ranks exchange gradients in the last one only."""
        ...

    def finish_gradients(self) -> None:
        """After the last backward: every gradient is the mean over all ranks, or this rank's shard of it."""
        ...


def lay_out(family: nn.Module, group: Group, *, mode: Mode = "ddp", fsdp: FsdpConfig | None = None) -> Parallel:
    """Lay a family, which lies on its device with the same weights on every rank, on all processes.

    Args:
        family: changed in place by `fsdp`: the parameters of its layers become DTensors.
        group: the processes; several for `fsdp`.
        mode: a copy on each, or shards.
        fsdp: what is sharded; for `fsdp` only.

    Raises:
        ConfigError: there is nothing to shard.
    """
    if mode == "fsdp":
        return _Sharded(family, group, fsdp or FsdpConfig())
    return _Alone(family) if group.world == 1 else _Replicated(family, group)


class _Alone:
    """One process."""

    def __init__(self, family: nn.Module) -> None:
        self.module = family

    def exchange(self, *, last: bool) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def finish_gradients(self) -> None:
        pass


class _Replicated:
    """A copy on every rank. Buffers (queues) are the same on all ranks by construction, so none are sent."""

    def __init__(self, family: nn.Module, group: Group) -> None:
        devices = [group.device] if group.device.type == "cuda" else None
        self.module = nn.parallel.DistributedDataParallel(
            family, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    def exchange(self, *, last: bool) -> AbstractContextManager[object]:
        if last:
            return contextlib.nullcontext()
        unsynchronised: AbstractContextManager[object] = self.module.no_sync()
        return unsynchronised

    def finish_gradients(self) -> None:
        pass


class _Sharded:
    """Layers in shards, the rest a copy on every rank."""

    def __init__(self, family: nn.Module, group: Group, config: FsdpConfig) -> None:
        mesh = init_device_mesh(group.device.type, (group.world,))
        # Layers are gathered as they are, and autocast sees to the precision, as with copies: gathering them in bfloat16
        # would send half, and round the scales of layer norms, so that losses were no longer the same.
        sharded = [unit for unit in sharding_units(family) if config.twin == "sharded" or _learns(unit)]
        if not sharded:
            raise ConfigError("parallel=fsdp: this family has no layers to shard; use parallel=ddp")
        for unit in sharded:
            fully_shard(unit, mesh=mesh)
        # Twins have no gradients to exchange, and some of their layers may not have run yet, which torch does not expect of
        # a layer that withholds its gradients.
        self._learning = [unit for unit in sharded if isinstance(unit, FSDPModule) and _learns(unit)]
        if config.queue == "sharded":
            for queue in [module for module in family.modules() if isinstance(module, FeatureQueue)]:
                queue.shard(mesh)
        self._whole = [parameter for parameter in family.parameters() if not isinstance(parameter, DTensor)]
        # The root shards nothing itself; it lets the layers share their streams and fetch one another ahead.
        fully_shard(family, mesh=mesh, ignored_params=set(self._whole))
        self.module = family
        self._world = group.world

    def exchange(self, *, last: bool) -> AbstractContextManager[object]:
        for layer in self._learning:
            layer.set_requires_gradient_sync(last)
        return contextlib.nullcontext()

    def finish_gradients(self) -> None:
        gradients = [parameter.grad for parameter in self._whole if parameter.grad is not None]
        by_type: defaultdict[torch.dtype, list[Tensor]] = defaultdict(list)
        for gradient in gradients:
            by_type[gradient.dtype].append(gradient)
        for alike in by_type.values():
            flat = torch.cat([gradient.flatten() for gradient in alike])
            dist.all_reduce(flat)
            flat /= self._world
            parts = torch.split(flat, [gradient.numel() for gradient in alike])
            torch._foreach_copy_(alike, [part.view_as(like) for part, like in zip(parts, alike, strict=True)])


def sharding_units(family: nn.Module) -> tuple[nn.Module, ...]:
    """Find the layers that can be sharded each on its own, in the order in which the family names them.

    Those are the elements of its lists of layers. Where elements share weights with one another, the module that holds the
    list is taken as a whole; what shares weights with the rest of the family is left out. A lone matrix is no layer: a
    message of its own would cost more than it saves.
    """
    places: defaultdict[nn.Parameter, list[str]] = defaultdict(list)
    for name, parameter in family.named_parameters(remove_duplicate=False):
        places[parameter].append(name)

    def is_closed(prefix: str, module: nn.Module) -> bool:
        return all(name.startswith(f"{prefix}.") for parameter in module.parameters() for name in places[parameter])

    found: list[nn.Module] = []
    for prefix, holder in family.named_modules():
        for label, layers in holder.named_children():
            if not isinstance(layers, nn.ModuleList) or not all(any(layer.children()) for layer in layers):
                continue
            elements = [
                (".".join(filter(None, (prefix, label, name))), layer) for name, layer in layers.named_children()
            ]
            if all(is_closed(place, layer) for place, layer in elements):
                found += [layer for _, layer in elements]
            elif prefix and is_closed(prefix, holder):
                found.append(holder)
    return tuple(found)


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put sharded tensors together; every rank must call it with the same names."""
    return {name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor for name, tensor in tensors.items()}


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of all gradients together, a scalar on their device, the same on every rank; every rank must call it."""
    parts = [_norm(alike) for alike in _kinds([each.grad for each in parameters if each.grad is not None])]
    return torch.stack(parts).norm() if parts else torch.zeros(())


def clip_gradients(parameters: Sequence[nn.Parameter], norm: Tensor, *, limit: float) -> None:
    """Scale all gradients so that their norm, which is given, is at most `limit`; waits for no device."""
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    for alike in _kinds([each.grad for each in parameters if each.grad is not None]):
        torch._foreach_mul_([local(gradient) for gradient in alike], scale.to(alike[0].device))


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, the tensor itself where it is whole; changing it changes the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _kinds(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Sharded and whole ones apart: they do not mix in one operation."""
    for is_sharded in (True, False):
        alike = [gradient for gradient in gradients if isinstance(gradient, DTensor) is is_sharded]
        if alike:
            yield alike


def _norm(alike: list[Tensor]) -> Tensor:
    norm = nn.utils.get_total_norm(alike)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _learns(unit: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in unit.parameters())
