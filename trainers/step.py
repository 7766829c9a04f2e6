"""One optimiser step: forward and backward over micro-batches, then AdamW. Its randomness has an address."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import xxhash
from torch import Tensor

from model.examples import UnfitError
from model.family import Batch, Family, Losses, Progress
from model.layers.layer import compile_layers
from shards.errors import InputError
from trainers.arrival import arrived
from trainers.bad_loss import BadLossConfig, KeptBuffers, LossGuard, OnBadLoss
from trainers.distributed import Group
from trainers.optim import CosineSchedule, EpochCosineSchedule, Horizon, learning_rate, set_learning_rate
from trainers.parallel import Parallel, clip_gradients, gradient_norm, lay_out

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLosses:
    """What one step reports; scalars stay on their device, so that no step waits for the accelerator."""

    losses: Mapping[str, Tensor]  # "loss" and "loss/<term>", means over micro-batches of this rank
    logged: Mapping[str, Tensor]  # with `grad_norm`, of all ranks' gradients together, before clipping
    bad: Tensor  # 1 where the loss is no number or explodes, else 0; the same on every rank
    lr: float
    copied_s: float  # of this process, to hand the batches to the device


class TrainStep:
    """Runs optimiser steps. Holds no counter: the caller says which step it is, and that alone decides rate and randomness."""

    def __init__(
        self,
        family: Family,
        optimizer: torch.optim.Optimizer,
        *,
        schedule: CosineSchedule | EpochCosineSchedule,
        horizon: Horizon,
        group: Group,
        seed: int,
        precision: Precision = "fp32",
        clip_norm: float | None = None,
        compiled: bool = False,
        parallel: Parallel | None = None,
        guard: LossGuard | None = None,
        on_bad_loss: OnBadLoss = "stop",
    ) -> None:
        """Join what a step is made of.

        Args:
            family: whose losses are computed.
            optimizer: over the family's parameters, as they are laid out.
            schedule: says the rate of a step.
            horizon: of the run.
            group: all ranks.
            seed: of the run.
            precision: of forward and backward.
            clip_norm: the greatest norm of all gradients together; unset: any.
            compiled: whether the family's layers are compiled.
            parallel: how the family lies on the ranks; unset: a copy on each.
            guard: judges losses; unset: only by whether they are numbers.
            on_bad_loss: `skip` leaves the update of a bad step out, which takes a fused optimiser.
        """
        self.family = family
        self.optimizer = optimizer
        self.schedule = schedule
        self.horizon = horizon
        self.group = group
        self.seed = seed
        self.precision = precision
        self.clip_norm = clip_norm
        self.guard = guard or LossGuard(BadLossConfig(), group)
        self.on_bad_loss = on_bad_loss
        self._parallel = parallel or lay_out(family, group)
        self._forward: Callable[[Batch, Progress], Losses] = self._parallel.module
        if compiled:
            compile_layers(family)

    def __call__(self, batches: Sequence[Batch], step: int) -> StepLosses:
        """Take optimiser step `step` (from 0) over this rank's micro-batches.

        Dropout and every other draw on the device come from (seed, step, rank), never from what ran before: a resumed
        run draws the same.
        """
        torch.manual_seed(step_seed(self.seed, step, self.group.rank))
        self.family.train()
        progress = Progress(step=step, steps_per_epoch=self.horizon.steps_per_epoch)
        lr = learning_rate(self.schedule, step, self.horizon)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        kept = KeptBuffers(self.family) if self.on_bad_loss == "skip" else None
        copied_s = 0.0
        parts = []
        items = sum(map(len, batches))  # micro-batches of several tasks may differ in size
        for batch, last in _with_last(batches):
            began = time.perf_counter()
            there = batch.to(self.group.device, non_blocking=True)
            copied_s += time.perf_counter() - began
            parts.append(self._backward(arrived(there), progress, share=len(batch) / items, last=last))
        self._parallel.finish_gradients()
        learning = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        norm = gradient_norm(learning)
        if self.clip_norm is not None:
            clip_gradients(learning, norm, limit=self.clip_norm)
        losses = _mean([{"loss": each.total.detach()} | _prefixed(each.terms) for each in parts])
        bad = self.guard.judge(losses["loss"], norm)
        self._update(bad, kept)
        logged = _mean([dict(each.logged) for each in parts]) | {"grad_norm": norm}
        return StepLosses(losses=losses, logged=logged, bad=bad, lr=lr, copied_s=copied_s)

    def _update(self, bad: Tensor, kept: KeptBuffers | None) -> None:
        """Let the optimiser move the weights; where bad steps are skipped, only if this one is sound."""
        if kept is None:
            self.optimizer.step()
            return
        # What a gradient scaler hands to a fused optimiser: its kernel looks at the flag itself, so that nothing waits.
        self.optimizer.grad_scale = None  # type: ignore[attr-defined]
        self.optimizer.found_inf = bad  # type: ignore[attr-defined]
        self.optimizer.step()
        kept.restore_where(bad)

    def _backward(self, batch: Batch, progress: Progress, *, share: float, last: bool) -> Losses:
        with self._parallel.exchange(last=last):
            with self._autocast():
                losses = self._losses(batch, progress)
            torch.autograd.backward(losses.total * share)
        return losses

    def _losses(self, batch: Batch, progress: Progress) -> Losses:
        try:
            return self._forward(batch, progress)
        except UnfitError as error:
            raise InputError(str(error)) from error

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.group.device.type, dtype=torch.bfloat16)


def step_seed(seed: int, step: int, rank: int) -> int:
    """Address the randomness of one step on one rank: 63 bits."""
    return xxhash.xxh3_64_intdigest(f"step:{seed}:{step}:{rank}".encode()) >> 1


def _with_last(batches: Sequence[Batch]) -> list[tuple[Batch, bool]]:
    return [(batch, position == len(batches) - 1) for position, batch in enumerate(batches)]


def _prefixed(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"loss/{name}": value.detach() for name, value in terms.items()}


def _mean(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name].detach().float() for part in parts]).mean() for name in parts[0]}
