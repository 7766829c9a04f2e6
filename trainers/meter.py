"""The numbers of an interval: collected on the device, settled together, averaged over ranks; bad steps are counted or stop it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import xxhash
from torch import Tensor

from trainers.bad_loss import BadLossError, ExplodingLossError, NonFiniteLossError, OnBadLoss
from trainers.distributed import Group

logger = logging.getLogger(__name__)

_KEYS_NAMED = 8  # of the keys of a batch, how many an error sentence names


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    step: int
    values: Mapping[str, Tensor]
    bad: Tensor
    keys: Sequence[str]
    digest: int


def _untold(step: int) -> str:
    return ""


class Meter:
    """Gathers the losses of every step without waiting for the device, until an interval or a checkpoint asks for them."""

    def __init__(
        self,
        group: Group,
        *,
        resumed: Sequence[Mapping[str, float]] = (),
        on_bad_loss: OnBadLoss = "stop",
        allowed: int = 0,
        skipped: Sequence[int] = (),
        lineage: Callable[[int], str] = _untold,
    ) -> None:
        """Start empty, or with what a checkpoint remembers.

        Args:
            group: all ranks, each with a meter.
            resumed: the settled steps of the interval that the checkpoint interrupted.
            on_bad_loss: whether a bad step stops the run, or was left out by the optimiser and counts as skipped.
            allowed: how many steps of the run may be skipped.
            skipped: those skipped so far, counted from 1.
            lineage: says what a step, counted from 1, was made of; asked on rank 0 and for bad steps only.
        """
        self._group = group
        self._on_bad_loss, self._allowed, self._lineage = on_bad_loss, allowed, lineage
        self._settled: list[Mapping[str, float]] = list(resumed)
        self._skipped: list[int] = list(skipped)
        self._pending: list[_Pending] = []

    def add(
        self, step: int, values: Mapping[str, Tensor], *, bad: Tensor, keys: Sequence[str], first_slot: int
    ) -> None:
        """Take the losses of step `step` (from 0), and the keys of this rank's slots in slot order.

        Args:
            step: which one.
            values: scalars by name; `loss` is the total.
            bad: scalar, 1 where the step is bad and 0 elsewhere, the same on every rank.
            keys: of the records.
            first_slot: of this rank in the global batch.
        """
        digest = order_digest(keys, first_slot)
        self._pending.append(_Pending(step=step, values=values, bad=bad, keys=keys, digest=digest))

    def settle(self) -> list[dict[str, int | str]]:
        """Bring what is pending to the CPU, averaged over ranks. Every rank must call this at the same steps.

        Returns:
            One row per settled step for order.jsonl: optimiser steps done, and the digest of the global batch's keys.

        Raises:
            BadLossError: a step was bad, and it may not be skipped, or too many were.
        """
        if not self._pending:
            return []
        names = list(self._pending[0].values)
        values = torch.stack(
            [torch.stack([*(entry.values[name] for name in names), entry.bad]) for entry in self._pending]
        ).double()
        values = self._group.sum(values).cpu() / self._group.world  # (steps, names and bad)
        digests = self._group.sum(torch.tensor([entry.digest for entry in self._pending], device=self._group.device))
        for entry, (*row, bad) in zip(self._pending, values.tolist(), strict=True):
            named = dict(zip(names, row, strict=True))
            if bad:
                self._meet(entry, named)
            else:
                self._settled.append(named)
        order: list[dict[str, int | str]] = [
            {"step": entry.step + 1, "digest": f"{value % 2**63:016x}"}
            for entry, value in zip(self._pending, digests.tolist(), strict=True)
        ]
        self._pending.clear()
        return order

    @property
    def settled(self) -> tuple[Mapping[str, float], ...]:
        """The sound steps of the interval so far, for a checkpoint in the middle of one."""
        return tuple(self._settled)

    @property
    def skipped(self) -> tuple[int, ...]:
        """The steps of the run, counted from 1, that were left out so far."""
        return tuple(self._skipped)

    def take(self) -> dict[str, float] | None:
        """Average the settled sound steps and start the next interval; `None` where all of them were skipped."""
        if not self._settled:
            return None
        means = {name: math.fsum(row[name] for row in self._settled) / len(self._settled) for name in self._settled[0]}
        self._settled.clear()
        return means

    def _meet(self, entry: _Pending, values: Mapping[str, float]) -> None:
        """Count a bad step, or stop over it."""
        odd = [name for name, value in values.items() if not math.isfinite(value)]
        if odd:
            what = f"{' and '.join(odd)} {'is' if len(odd) == 1 else 'are'} not finite"
        else:
            what = f"loss {values['loss']:.4g} is far above the median of the steps before it (bad_loss.explosion)"
        named = ", ".join(entry.keys[:_KEYS_NAMED]) + (", …" if len(entry.keys) > _KEYS_NAMED else "")
        told = f"step {entry.step + 1}: {what} (rank {self._group.rank} saw {named})"
        made_of = self._lineage(entry.step + 1) if self._group.is_main else ""
        kind: type[BadLossError] = NonFiniteLossError if odd else ExplodingLossError
        advice = "the last checkpoint is sound: go on from it with a lower schedule.lr or precision=fp32"
        if self._on_bad_loss == "stop":
            raise kind(f"{told}; {advice}, or leave such steps out by on_bad_loss=skip{made_of}")
        self._skipped.append(entry.step + 1)
        if len(self._skipped) > self._allowed:
            raise kind(
                f"{told}; with it {len(self._skipped)} steps are skipped and bad_loss.allowed={self._allowed}; {advice}{made_of}"
            )
        logger.warning("%s; its update was left out, %d of %d%s", told, len(self._skipped), self._allowed, made_of)


def order_digest(keys: Sequence[str], first_slot: int) -> int:
    """Digest which example sits in which slot of a global batch: 63 bits that add up over ranks, whatever their number."""
    slots = enumerate(keys, start=first_slot)
    return sum(xxhash.xxh3_64_intdigest(f"{slot}:{key}".encode()) for slot, key in slots) % 2**63
