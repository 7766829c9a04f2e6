"""Losses that are no number or explode: judged on the device, alike on all ranks, before a step changes any weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from shards.config import Config
from shards.errors import OstrakaError
from trainers.distributed import Group
from trainers.parallel import local

OnBadLoss = Literal["stop", "skip"]


class BadLossError(OstrakaError):
    """A step's loss or gradient was bad, and the run may not go on over it."""


class NonFiniteLossError(BadLossError):
    """A loss or gradient became NaN or infinite: the run stops before a checkpoint could hold it."""


class ExplodingLossError(BadLossError):
    """A loss rose far above those before it."""


class BadLossConfig(Config):
    """Which losses are bad beside those that are no number, and how many of them a run may skip."""

    allowed: NonNegativeInt = 10
    """steps that on_bad_loss=skip may leave out over the whole run; one more stops it"""
    explosion: float | None = Field(default=None, gt=1)
    """a loss above this many times the median of the last `window` sound ones is bad; unset: only what is no number"""
    window: PositiveInt = 64
    """sound losses that the median is taken of; a quarter of them must be there before any is judged by it"""


class LossGuard:
    """Judges each step from its loss and the norm of its gradients. Holds the last sound losses; waits for no device."""

    def __init__(self, config: BadLossConfig, group: Group, *, recent: Sequence[float] = ()) -> None:
        """Begin with the sound losses that a checkpoint remembers, oldest first."""
        self._config, self._group = config, group
        self._least = max(1, config.window // 4)
        known = torch.tensor(list(recent)[-config.window :], dtype=torch.float32)
        unknown = torch.full((config.window - len(known),), torch.nan)
        self._recent = torch.cat([unknown, known]).to(group.device)

    @torch.no_grad()
    def judge(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Say whether a step is bad, and remember its loss where it is not. Every rank must call it.

        Args:
            loss: scalar, this rank's.
            norm: scalar, of the gradients of all ranks together.

        Returns:
            A scalar, 1 where the step is bad and 0 elsewhere, the same on every rank.
        """
        loss = self._group.sum(loss.detach().float().clone()) / self._group.world
        bad = ~(loss.isfinite() & norm.isfinite())
        if self._config.explosion is not None:
            judged = (~self._recent.isnan()).sum() >= self._least
            bad |= judged & (loss > self._config.explosion * self._recent.nanmedian())
        self._recent = torch.where(bad, self._recent, torch.cat([self._recent[1:], loss[None]]))
        return bad.float()

    def recent(self) -> tuple[float, ...]:
        """The last sound losses, oldest first, for a checkpoint; waits for the device."""
        return tuple(value for value in self._recent.tolist() if not math.isnan(value))


class KeptBuffers:
    """The buffers of a family (queues) as they were before a step, so that a skipped one leaves no trace in them.

    Momentum twins need no copy: what they follow is the student before the step.
    """

    @torch.no_grad()
    def __init__(self, family: nn.Module) -> None:
        self._buffers = [local(buffer) for buffer in family.buffers()]
        self._before = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def restore_where(self, bad: Tensor) -> None:
        """Put them back where `bad`, a scalar on their device, is not zero."""
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(torch.where(bad.bool(), before, buffer))
