"""One optimiser step: forward and backward over micro-batches, then AdamW. Its randomness has an address."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import xxhash
from torch import Tensor, nn

from model.family import Batch, Family, Losses, Progress
from trainers.arrival import arrived
from trainers.distributed import Group
from trainers.optim import CosineSchedule, EpochCosineSchedule, Horizon, learning_rate, set_learning_rate

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLosses:
    """What one step reports; scalars stay on their device, so that no step waits for the accelerator."""

    losses: Mapping[str, Tensor]  # "loss" and "loss/<term>", means over micro-batches of this rank
    logged: Mapping[str, Tensor]
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
    ) -> None:
        self.family = family
        self.optimizer = optimizer
        self.schedule = schedule
        self.horizon = horizon
        self.group = group
        self.seed = seed
        self.precision = precision
        self.clip_norm = clip_norm
        self._wrapped = group.wrap(family)
        self._forward: Callable[[Batch, Progress], Losses] = torch.compile(self._wrapped) if compiled else self._wrapped

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
        copied_s = 0.0
        parts = []
        items = sum(map(len, batches))  # micro-batches of several tasks may differ in size
        for batch, last in _with_last(batches):
            began = time.perf_counter()
            there = batch.to(self.group.device, non_blocking=True)
            copied_s += time.perf_counter() - began
            parts.append(self._backward(arrived(there), progress, share=len(batch) / items, last=last))
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.family.parameters(), self.clip_norm)
        self.optimizer.step()
        totals = [{"loss": losses.total.detach()} | _prefixed(losses.terms) for losses in parts]
        return StepLosses(
            losses=_mean(totals), logged=_mean([dict(losses.logged) for losses in parts]), lr=lr, copied_s=copied_s
        )

    def _backward(self, batch: Batch, progress: Progress, *, share: float, last: bool) -> Losses:
        with self._exchange(last):
            with self._autocast():
                losses = self._forward(batch, progress)
            torch.autograd.backward(losses.total * share)
        return losses

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.group.device.type, dtype=torch.bfloat16)

    def _exchange(self, last: bool) -> contextlib.AbstractContextManager[object]:
        """Let ranks exchange gradients once per step, after the last micro-batch."""
        if last or not isinstance(self._wrapped, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        unsynchronised: contextlib.AbstractContextManager[object] = self._wrapped.no_sync()
        return unsynchronised


def step_seed(seed: int, step: int, rank: int) -> int:
    """Address the randomness of one step on one rank: 63 bits."""
    return xxhash.xxh3_64_intdigest(f"step:{seed}:{step}:{rank}".encode()) >> 1


def _with_last(batches: Sequence[Batch]) -> list[tuple[Batch, bool]]:
    return [(batch, position == len(batches) - 1) for position, batch in enumerate(batches)]


def _prefixed(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"loss/{name}": value.detach() for name, value in terms.items()}


def _mean(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name].detach().float() for part in parts]).mean() for name in parts[0]}
