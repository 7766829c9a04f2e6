"""The numbers of an interval: collected on the device, settled together, averaged over ranks, checked for NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import xxhash
from torch import Tensor

from shards.errors import OstrakaError
from trainers.distributed import Group

_KEYS_NAMED = 8  # of the keys of a batch, how many an error sentence names


class NonFiniteLossError(OstrakaError):
    """A loss became NaN or infinite: the run stops before a checkpoint could hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    step: int
    values: Mapping[str, Tensor]
    keys: Sequence[str]
    digest: int


class Meter:
    """Gathers the losses of every step without waiting for the device, until an interval or a checkpoint asks for them."""

    def __init__(self, group: Group, *, resumed: Sequence[Mapping[str, float]] = ()) -> None:
        """Start empty, or with the settled steps of the interval that a checkpoint interrupted."""
        self._group = group
        self._settled: list[Mapping[str, float]] = list(resumed)
        self._pending: list[_Pending] = []

    def add(self, step: int, values: Mapping[str, Tensor], *, keys: Sequence[str], first_slot: int) -> None:
        """Take the losses of step `step` (from 0) and the keys of this rank's slots, in slot order."""
        self._pending.append(_Pending(step=step, values=values, keys=keys, digest=order_digest(keys, first_slot)))

    def settle(self) -> list[dict[str, int | str]]:
        """Bring what is pending to the CPU, averaged over ranks. Every rank must call this at the same steps.

        Returns:
            One row per settled step for order.jsonl: optimiser steps done, and the digest of the global batch's keys.

        Raises:
            NonFiniteLossError: a loss of these steps is not finite.
        """
        if not self._pending:
            return []
        names = list(self._pending[0].values)
        values = torch.stack([torch.stack([entry.values[name] for name in names]) for entry in self._pending]).double()
        values = self._group.sum(values).cpu() / self._group.world  # (steps, names)
        digests = self._group.sum(torch.tensor([entry.digest for entry in self._pending], device=self._group.device))
        rows = dict(zip((entry.step for entry in self._pending), values.tolist(), strict=True))
        for entry in self._pending:
            bad = [name for name, value in zip(names, rows[entry.step], strict=True) if not math.isfinite(value)]
            if bad:
                raise NonFiniteLossError(_sentence(entry, bad, rank=self._group.rank))
        self._settled += [dict(zip(names, row, strict=True)) for row in rows.values()]
        order: list[dict[str, int | str]] = [
            {"step": entry.step + 1, "digest": f"{value % 2**63:016x}"}
            for entry, value in zip(self._pending, digests.tolist(), strict=True)
        ]
        self._pending.clear()
        return order

    @property
    def settled(self) -> tuple[Mapping[str, float], ...]:
        """The steps of the interval so far, for a checkpoint in the middle of one."""
        return tuple(self._settled)

    def take(self) -> dict[str, float]:
        """Average the settled steps and start the next interval."""
        means = {name: math.fsum(row[name] for row in self._settled) / len(self._settled) for name in self._settled[0]}
        self._settled.clear()
        return means


def order_digest(keys: Sequence[str], first_slot: int) -> int:
    """Digest which example sits in which slot of a global batch: 63 bits that add up over ranks, whatever their number."""
    slots = enumerate(keys, start=first_slot)
    return sum(xxhash.xxh3_64_intdigest(f"{slot}:{key}".encode()) for slot, key in slots) % 2**63


def _sentence(entry: _Pending, bad: Sequence[str], *, rank: int) -> str:
    named = ", ".join(entry.keys[:_KEYS_NAMED]) + (", …" if len(entry.keys) > _KEYS_NAMED else "")
    return (
        f"step {entry.step + 1}: {' and '.join(bad)} {'is' if len(bad) == 1 else 'are'} not finite "
        f"(rank {rank} saw {named}); the last checkpoint is sound: go on from it with a lower schedule.lr or precision=fp32"
    )
