"""The optimiser and the learning rate: AdamW over two parameter groups, and the rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from model.family import Family
from shards.config import Config

# The published recipe counts its warm-up in "epochs" that are units of 100 iterations (reference: ALBEF and ViCHA loops).
ITERATIONS_PER_WARMUP_UNIT = 100


class OptimConfig(Config):
    """AdamW. The learning rate has its one home in the schedule."""

    betas: tuple[float, float] = (0.9, 0.999)
    """how slowly the means of gradients and of their squares forget"""
    eps: PositiveFloat = 1e-8
    """added to the root of the mean square"""
    weight_decay: NonNegativeFloat = 0.02
    """of all weights but biases and normalisations"""
    clip_norm: PositiveFloat | None = None
    """largest norm of the gradient of all weights; unset: none, as in the published recipes"""
    implementation: Literal["fused", "foreach", "loop"] = "fused"
    """how an update is computed: in one kernel, by lists of tensors, or weight by weight"""


class CosineSchedule(Config):
    """Linear warm-up, then a cosine down to `min_lr`, both counted in optimiser steps over the whole run."""

    kind: Literal["cosine"] = "cosine"
    """`cosine`, step by step; `epoch_cosine`: one value per epoch, as published, with warmup_lr and warmup_units"""
    lr: PositiveFloat = 1e-3
    """the highest rate, at the end of the warm-up"""
    min_lr: NonNegativeFloat = 1e-5
    """the rate of the last step"""
    warmup_steps: NonNegativeInt = 100
    """steps from nothing to the highest rate"""


class EpochCosineSchedule(Config):
    """The published ViCHA rule: warm-up in units of 100 iterations inside epoch 0, then one cosine value per epoch.

    An epoch 0 that is shorter than the warm-up cuts it off, as in the released loop.
    """

    kind: Literal["epoch_cosine"] = "epoch_cosine"
    lr: PositiveFloat = 1e-4
    """the highest rate"""
    min_lr: NonNegativeFloat = 1e-5
    """the rate of the last step"""
    warmup_lr: NonNegativeFloat = 1e-5
    """of `epoch_cosine`: the rate that the warm-up begins with"""
    warmup_units: NonNegativeInt = 20
    """of `epoch_cosine`: hundreds of iterations of its warm-up"""


ScheduleConfig = Annotated[CosineSchedule | EpochCosineSchedule, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """How long a run is: all that a schedule knows of it."""

    steps: int  # optimiser steps of the whole run
    steps_per_epoch: int

    @property
    def epochs(self) -> int:
        return max(1, math.ceil(self.steps / self.steps_per_epoch))


def learning_rate(schedule: CosineSchedule | EpochCosineSchedule, step: int, horizon: Horizon) -> float:
    """Say the rate that optimiser step `step` (from 0) uses; a pure function, so a resumed run needs no scheduler state."""
    if isinstance(schedule, EpochCosineSchedule):
        return _epoch_cosine(schedule, step, horizon)
    if step < schedule.warmup_steps:
        return schedule.lr * (step + 1) / schedule.warmup_steps
    done = (step - schedule.warmup_steps) / max(1, horizon.steps - schedule.warmup_steps)
    return _cosine(schedule.lr, schedule.min_lr, min(1.0, done))


def _epoch_cosine(schedule: EpochCosineSchedule, step: int, horizon: Horizon) -> float:
    epoch, iteration = divmod(step, horizon.steps_per_epoch)
    if epoch:
        return _cosine(schedule.lr, schedule.min_lr, min(1.0, epoch / horizon.epochs))
    # The released loop moves the rate after the step of every 100th iteration, so that iteration still uses the old one.
    units = max(0, iteration - 1) // ITERATIONS_PER_WARMUP_UNIT
    if units >= schedule.warmup_units:
        return schedule.lr
    return schedule.warmup_lr + units * (schedule.lr - schedule.warmup_lr) / schedule.warmup_units


def _cosine(high: float, low: float, done: float) -> float:
    return low + 0.5 * (high - low) * (1.0 + math.cos(math.pi * done))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Trainable parameters that share a weight decay, by name."""

    names: tuple[str, ...]
    weight_decay: float


def parameter_groups(family: Family, config: OptimConfig) -> tuple[ParameterGroup, ParameterGroup]:
    """Deal the trainable parameters into those without and those with weight decay, by the family's own rule.

    Tied parameters appear once, under their first name; frozen ones (momentum twins) not at all.
    """
    trainable = [(name, parameter) for name, parameter in family.named_parameters() if parameter.requires_grad]
    decays = {name: family.decays(name, parameter) for name, parameter in trainable}
    return (
        ParameterGroup(names=tuple(name for name, _ in trainable if not decays[name]), weight_decay=0.0),
        ParameterGroup(names=tuple(name for name, _ in trainable if decays[name]), weight_decay=config.weight_decay),
    )


def build_optimizer(family: Family, config: OptimConfig, *, lr: float) -> torch.optim.AdamW:
    """Build AdamW over the family's trainable parameters, which must already lie on their device."""
    by_name: dict[str, nn.Parameter] = dict(family.named_parameters())
    groups = [
        {"params": alike, "weight_decay": group.weight_decay}
        for group in parameter_groups(family, config)
        for alike in _kinds([by_name[name] for name in group.names])
    ]
    return torch.optim.AdamW(
        groups,
        lr=lr,
        betas=config.betas,
        eps=config.eps,
        fused=config.implementation == "fused",
        foreach=config.implementation == "foreach",
    )


def _kinds(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Sharded parameters and whole ones apart, where there are any: one fused update takes one kind."""
    for is_sharded in (False, True):
        alike = [parameter for parameter in parameters if isinstance(parameter, DTensor) is is_sharded]
        if alike:
            yield alike


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def optimizer_state_by_name(family: Family, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """Name the optimiser's moments by parameter, so that a checkpoint does not depend on the order of groups."""
    names = {parameter: name for name, parameter in family.named_parameters()}
    return {
        names[parameter]: dict(optimizer.state[parameter])
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter in optimizer.state
    }


def load_optimizer_state(
    family: Family, optimizer: torch.optim.Optimizer, state: dict[str, dict[str, Tensor]], *, where: str
) -> None:
    """Put moments back beside their parameters.

    Raises:
        ValueError: the names or shapes are not those of this family's trainable parameters.
    """
    by_name = dict(family.named_parameters())
    expected = {name for group in parameter_names(family, optimizer) for name in group}
    if state and state.keys() != expected:
        odd = sorted(state.keys() ^ expected)
        raise ValueError(
            f"{where}: the optimiser state does not fit this model ({len(odd)} parameters differ, first {odd[0]!r}); "
            "resume with the code and config that wrote it, or start a new run with `init`"
        )
    for name, moments in state.items():
        parameter = by_name[name]
        for label, moment in moments.items():
            if moment.ndim and moment.shape != parameter.shape:
                raise ValueError(
                    f"{where}: {label} of {name!r} has shape {tuple(moment.shape)}, the parameter {tuple(parameter.shape)}"
                )
        # The only scalar is the step count: a fused optimiser keeps it beside its parameter, the others on the CPU.
        beside = bool(optimizer.defaults.get("fused"))
        optimizer.state[parameter] = {
            label: _laid_like(parameter, moment.to(parameter.device if moment.ndim or beside else "cpu", copy=True))
            for label, moment in moments.items()
        }


def _laid_like(parameter: nn.Parameter, moment: Tensor) -> Tensor:
    """Cut a whole moment as its parameter is cut; every process holds it, so nothing is sent.

    Or order its numbers in memory as its parameter's are: a fused update walks through both without a look at strides.
    """
    if not moment.ndim:
        return moment
    if not isinstance(parameter, DTensor):
        return torch.empty_like(parameter, dtype=moment.dtype, requires_grad=False).copy_(moment)
    return distribute_tensor(moment, parameter.device_mesh, parameter.placements, src_data_rank=None)


def parameter_names(family: Family, optimizer: torch.optim.Optimizer) -> tuple[tuple[str, ...], ...]:
    """Name the parameters of each group, in the order in which the optimiser holds them."""
    names = {parameter: name for name, parameter in family.named_parameters()}
    return tuple(tuple(names[parameter] for parameter in group["params"]) for group in optimizer.param_groups)
