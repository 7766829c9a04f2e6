"""A bad step is judged alike on all ranks, and a skipped one leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn

from model.family import Family, Losses, Progress
from shards.config import validate
from shards.errors import ConfigError
from tests.trainers.ranks import on_ranks
from trainers.bad_loss import BadLossConfig, BadLossError, ExplodingLossError, LossGuard, NonFiniteLossError
from trainers.checkpoint import find_checkpoint
from trainers.config import TrainConfig
from trainers.distributed import Group
from trainers.meter import Meter
from trainers.optim import CosineSchedule, Horizon, OptimConfig, build_optimizer
from trainers.step import TrainStep
from trainers.trainer import train

SOUND = torch.tensor(1.0)


def _judge(guard: LossGuard, *losses: float, norm: float = 1.0) -> list[bool]:
    return [bool(guard.judge(torch.tensor(loss), torch.tensor(norm))) for loss in losses]


@pytest.mark.parametrize("loss", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_is_bad_from_the_first_step_on(loss: float) -> None:
    guard = LossGuard(BadLossConfig(), Group())
    assert _judge(guard, loss, 1.0) == [True, False]
    assert guard.recent() == (1.0,)


def test_a_gradient_that_is_no_number_is_bad_though_the_loss_is_sound() -> None:
    guard = LossGuard(BadLossConfig(), Group())
    assert _judge(guard, 1.0, norm=torch.inf) == [True]
    assert guard.recent() == ()


def test_an_explosion_is_judged_by_the_median_of_sound_losses_once_there_are_enough() -> None:
    guard = LossGuard(BadLossConfig(explosion=3, window=8), Group())
    assert _judge(guard, 1.0, 500.0) == [False, False]  # a quarter of the window must be known first
    assert _judge(guard, 1.0, 1.0, 2.9, 3.1) == [False, False, False, True]
    assert guard.recent() == (1.0, 500.0, 1.0, 1.0, pytest.approx(2.9))
    _judge(guard, *[10.0] * 3, *[2.0] * 8)  # what is old is forgotten
    assert guard.recent() == (2.0,) * 8
    assert _judge(guard, 5.9, 6.1) == [False, True]


def test_a_guard_that_is_resumed_judges_as_the_one_that_was_not() -> None:
    config = BadLossConfig(explosion=2, window=5)
    whole = LossGuard(config, Group())
    losses = [1.0, 1.1, 0.9, 3.0, 1.3, 1.2, 2.5, 1.0]
    judged = _judge(whole, *losses)
    first = LossGuard(config, Group())
    begun = _judge(first, *losses[:4])
    second = LossGuard(config, Group(), recent=first.recent())
    assert begun + _judge(second, *losses[4:]) == judged
    assert second.recent() == whole.recent()


class Rows:
    """A batch of rows."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        return self

    def __len__(self) -> int:
        return len(self.rows)


class Remembering(Family):
    """A line with a queue of what it has seen."""

    queue: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.line = nn.Linear(4, 1)
        self.register_buffer("queue", torch.zeros(4))

    def forward(self, batch: Rows, progress: Progress) -> Losses:
        self.queue.copy_(batch.rows.mean(0))
        return Losses({"square": self.line(batch.rows).square().mean()})

    def predict(self, batch: Any, request: Any) -> Any:
        raise NotImplementedError

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        return True


def _step(group: Group, *, explosion: float | None = None) -> TrainStep:
    family = Remembering()
    return TrainStep(
        family,
        build_optimizer(family, OptimConfig(), lr=1.0),
        schedule=CosineSchedule(lr=0.01, min_lr=0.01, warmup_steps=0),
        horizon=Horizon(steps=10, steps_per_epoch=4),
        group=group,
        seed=5,
        guard=LossGuard(BadLossConfig(explosion=explosion, window=4), group),
        on_bad_loss="skip",
    )


def _rows(step: int) -> Rows:
    return Rows(torch.randn(8, 4, generator=torch.Generator().manual_seed(step)))


def _everything(step: TrainStep) -> list[Tensor]:
    moments = [moment for state in step.optimizer.state.values() for moment in state.values()]
    return [value.clone() for value in (*step.family.state_dict().values(), *moments)]


@pytest.mark.parametrize("harm", [torch.nan, 1e4])
def test_a_skipped_step_leaves_weights_moments_and_queues_as_they_were(harm: float) -> None:
    step, other = (_step(Group(), explosion=50) for _ in range(2))
    for number in range(3):
        for each in (step, other):
            each([_rows(number)], number)
    before = _everything(step)
    rows = _rows(3).rows
    rows[5] *= harm
    assert float(step([Rows(rows)], 3).bad) == 1
    assert all(now.equal(then) for now, then in zip(_everything(step), before, strict=True))
    assert float(step([_rows(4)], 4).bad) == 0
    other([_rows(4)], 4)
    assert all(one.equal(two) for one, two in zip(_everything(step), _everything(other), strict=True))


def _one_rank_is_harmed(group: Group) -> list[Any]:
    step = _step(group)
    step([_rows(group.rank)], 0)
    before = _everything(step)
    rows = _rows(2 + group.rank).rows
    if group.rank == 1:
        rows[0] = torch.nan
    bad = float(step([Rows(rows)], 1).bad)
    unchanged = all(now.equal(then) for now, then in zip(_everything(step), before, strict=True))
    step([_rows(4 + group.rank)], 2)
    return [bad, unchanged, step.family.state_dict()["line.weight"].tolist()]


def test_where_one_rank_has_a_bad_loss_all_skip_the_step() -> None:
    (bad, unchanged, weights), (other_bad, other_unchanged, other_weights) = on_ranks(_one_rank_is_harmed)
    assert (bad, other_bad, unchanged, other_unchanged) == (1, 1, True, True)
    assert weights == other_weights


def _meter(**changes: Any) -> Meter:
    return Meter(Group(), lineage=lambda step: f"; step {step} was made of this", **changes)


def _add(meter: Meter, step: int, loss: float, *, bad: bool) -> None:
    flag = torch.tensor(float(bad))
    meter.add(step, {"loss": torch.tensor(loss), "grad_norm": SOUND}, bad=flag, keys=["k"], first_slot=0)


def test_skipped_steps_are_counted_told_with_their_lineage_and_left_out_of_the_means(
    caplog: pytest.LogCaptureFixture,
) -> None:
    meter = _meter(on_bad_loss="skip", allowed=2)
    for step, (loss, bad) in enumerate([(1.0, False), (torch.nan, True), (3.0, False), (900.0, True)]):
        _add(meter, step, loss, bad=bad)
    assert [row["step"] for row in meter.settle()] == [1, 2, 3, 4]
    assert meter.skipped == (2, 4)
    assert meter.take() == {"loss": 2.0, "grad_norm": 1.0}
    assert "step 2: loss is not finite (rank 0 saw k); its update was left out, 1 of 2" in caplog.text
    assert "step 4: loss 900 is far above the median" in caplog.text
    assert "step 4 was made of this" in caplog.text
    assert meter.take() is None


def test_one_skipped_step_too_many_stops_the_run_also_when_it_was_resumed() -> None:
    meter = _meter(on_bad_loss="skip", allowed=2, skipped=(3, 9))
    _add(meter, 20, torch.nan, bad=True)
    with pytest.raises(
        NonFiniteLossError, match=r"step 21: .*with it 3 steps are skipped and bad_loss\.allowed=2.*made of this"
    ):
        meter.settle()


def test_an_explosion_stops_the_run_where_it_may_not_be_skipped() -> None:
    meter = _meter()
    _add(meter, 4, 900.0, bad=True)
    with pytest.raises(
        ExplodingLossError, match=r"step 5: loss 900 is far above.*on_bad_loss=skip; step 5 was made of this"
    ):
        meter.settle()


def test_the_error_of_a_run_spells_out_what_the_step_was_made_of(tiny_training: Callable[..., dict[str, Any]]) -> None:
    values = tiny_training(schedule={"kind": "cosine", "lr": 1e30, "warmup_steps": 0}, steps=20, checkpoint_every=1)
    with pytest.raises(
        BadLossError, match=r"(?s)step (\d+): .*; step \1 was made of:\n    0  world-.* crop \d+x\d+.*\[world, epoch"
    ):
        train(TrainConfig.model_validate(values), lines=False)


def test_a_run_skips_what_explodes_keeps_count_over_a_resumption_and_ends_with_sound_weights(
    tiny_training: Callable[..., dict[str, Any]],
) -> None:
    values = tiny_training(
        on_bad_loss="skip", bad_loss={"explosion": 1.0001, "window": 4, "allowed": 100}, steps=12, log_every=1
    )
    summary = train(TrainConfig.model_validate(values), lines=False)
    state = find_checkpoint(Path(values["output"])).state
    assert summary.skipped
    assert state.skipped == summary.skipped
    assert len(state.recent_losses) == 4
    with pytest.raises(BadLossError, match=r"bad_loss\.allowed=0"):
        train(
            TrainConfig.model_validate(
                {
                    **values,
                    "output": values["output"] + "-2",
                    "bad_loss": {"explosion": 1.0001, "window": 4, "allowed": 0},
                }
            ),
            lines=False,
        )


def test_skipping_without_a_fused_optimiser_is_refused(tiny_training: Callable[..., dict[str, Any]]) -> None:
    values = tiny_training(on_bad_loss="skip", optim={"implementation": "loop"})
    with pytest.raises(ConfigError, match=r"on_bad_loss=skip needs optim\.implementation=fused"):
        validate(TrainConfig, values, where="here")
