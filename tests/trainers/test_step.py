"""A step's rate and randomness depend on its number alone."""

from __future__ import annotations

from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from model.family import Family, Losses, Progress
from trainers.distributed import Group
from trainers.optim import CosineSchedule, Horizon, OptimConfig, build_optimizer
from trainers.step import TrainStep, step_seed


class Rows:
    """A batch of rows."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        return self

    def __len__(self) -> int:
        return len(self.rows)


class Dropping(Family):
    """A line behind dropout; its loss is a mean, so micro-batches of equal size average to the whole."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.line = nn.Linear(4, 1)
        self.drop = nn.Dropout(dropout)
        self.seen: list[Progress] = []

    def forward(self, batch: Rows, progress: Progress) -> Losses:
        self.seen.append(progress)
        square = self.line(self.drop(batch.rows)).square().mean()
        return Losses({"square": square, "pull": 0.1 * self.line.weight.square().sum()}, {"mean": batch.rows.mean()})

    def predict(self, batch: Any, request: Any) -> Any:
        raise NotImplementedError

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        return True


def _step(dropout: float = 0.5, **changes: Any) -> TrainStep:
    family = Dropping(dropout)
    return TrainStep(
        family,
        build_optimizer(family, OptimConfig(), lr=1.0),
        schedule=CosineSchedule(lr=0.1, min_lr=0, warmup_steps=2),
        horizon=Horizon(steps=10, steps_per_epoch=4),
        group=Group(),
        seed=5,
        **changes,
    )


def _rows(step: int, rows: int = 8) -> Rows:
    return Rows(torch.randn(rows, 4, generator=torch.Generator().manual_seed(step)))


def test_dropout_of_a_step_does_not_depend_on_what_ran_before() -> None:
    first, second = _step(), _step()
    expected = first([_rows(3)], 3).losses
    torch.rand(1000)  # another history of the global generator
    assert torch.equal(second([_rows(3)], 3).losses["loss"], expected["loss"])
    assert not torch.equal(_step()([_rows(3)], 4).losses["loss"], expected["loss"])


def test_ranks_and_steps_and_seeds_never_share_randomness() -> None:
    seeds = {step_seed(seed, step, rank) for seed in range(3) for step in range(20) for rank in range(4)}
    assert len(seeds) == 3 * 20 * 4


def test_micro_batches_take_the_same_step_as_the_whole_batch() -> None:
    whole, parts = _step(dropout=0.0), _step(dropout=0.0)
    rows = _rows(0).rows
    taken = whole([Rows(rows)], 0)
    split = parts([Rows(rows[:4]), Rows(rows[4:])], 0)
    torch.testing.assert_close(split.losses["loss"], taken.losses["loss"])
    torch.testing.assert_close(parts.family.line.weight, whole.family.line.weight)  # type: ignore[union-attr]


def test_losses_are_reported_by_name_with_their_total_and_the_rate() -> None:
    step = _step(dropout=0.0)
    taken = step([_rows(0)], 1)
    assert set(taken.losses) == {"loss", "loss/square", "loss/pull"}
    torch.testing.assert_close(taken.losses["loss"], taken.losses["loss/square"] + taken.losses["loss/pull"])
    assert set(taken.logged) == {"mean", "grad_norm"}
    assert taken.lr == pytest.approx(0.1)
    assert step.optimizer.param_groups[0]["lr"] == taken.lr


def test_the_family_is_told_how_far_the_run_is() -> None:
    step = _step()
    step([_rows(6)], 6)
    assert isinstance(step.family, Dropping)
    assert step.family.seen == [Progress(step=6, steps_per_epoch=4)]


def test_gradients_are_clipped_only_when_asked() -> None:
    free, clipped = _step(dropout=0.0), _step(dropout=0.0, clip_norm=1e-4)
    for step in (free, clipped):
        step([_rows(0)], 5)
    norms = [
        float(torch.stack([p.grad.norm() for p in step.family.parameters() if p.grad is not None]).norm())
        for step in (free, clipped)
    ]
    assert norms[0] > 1e-3
    assert norms[1] == pytest.approx(1e-4, rel=1e-2)


def test_bf16_steps_compute_in_bf16_and_keep_fp32_weights() -> None:
    step = _step(dropout=0.0, precision="bf16")
    taken = step([_rows(0)], 0)
    assert torch.isfinite(taken.losses["loss"])
    assert not torch.equal(taken.losses["loss"], _step(dropout=0.0)([_rows(0)], 0).losses["loss"])
    assert all(parameter.dtype == torch.float32 for parameter in step.family.parameters())
