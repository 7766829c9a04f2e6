"""The learning rate is a pure function of the step, and AdamW's moments travel by name."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from model.family import Family, Losses
from trainers.optim import (
    CosineSchedule,
    EpochCosineSchedule,
    Horizon,
    OptimConfig,
    build_optimizer,
    learning_rate,
    load_optimizer_state,
    optimizer_state_by_name,
    parameter_groups,
)


class Line(Family):
    """A line with a frozen twin and a tied weight: the smallest family there is."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)
        self.twin = nn.Linear(3, 1).requires_grad_(False)
        self.tied = nn.ParameterList([self.line.weight])

    def forward(self, batch: Any, progress: Any) -> Losses:
        return Losses({"square": self.line(batch).square().mean()})

    def predict(self, batch: Any, request: Any) -> Any:
        raise NotImplementedError

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim != 1


def test_the_rate_rises_linearly_and_falls_to_its_minimum() -> None:
    schedule = CosineSchedule(lr=1.0, min_lr=0.1, warmup_steps=4)
    horizon = Horizon(steps=20, steps_per_epoch=5)
    rates = [learning_rate(schedule, step, horizon) for step in range(21)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == pytest.approx(1.0)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[4:]))
    assert rates[20] == pytest.approx(0.1)


def test_an_epoch_shorter_than_the_published_warm_up_cuts_it_off() -> None:
    schedule = EpochCosineSchedule(lr=1.0, min_lr=0.0, warmup_lr=0.1, warmup_units=20)
    horizon = Horizon(steps=500, steps_per_epoch=250)
    assert learning_rate(schedule, 249, horizon) == pytest.approx(0.1 + 2 * 0.9 / 20)
    assert learning_rate(schedule, 250, horizon) == pytest.approx(0.5)


def test_without_warm_up_the_published_rule_starts_at_the_full_rate() -> None:
    schedule = EpochCosineSchedule(lr=1.0, min_lr=0.0, warmup_lr=0.1, warmup_units=0)
    assert learning_rate(schedule, 0, Horizon(steps=10, steps_per_epoch=10)) == 1.0


def test_groups_name_each_trainable_parameter_once() -> None:
    plain, decayed = parameter_groups(Line(), OptimConfig(weight_decay=0.5))
    assert (plain.names, plain.weight_decay) == (("line.bias",), 0.0)
    assert (decayed.names, decayed.weight_decay) == (("line.weight",), 0.5)


@pytest.mark.parametrize("implementation", ["fused", "foreach", "loop"])
def test_moments_put_back_by_name_continue_bit_for_bit(implementation: Any) -> None:
    torch.manual_seed(0)
    data = torch.randn(6, 4, 3)
    config = OptimConfig(implementation=implementation)
    family = Line()
    optimizer = build_optimizer(family, config, lr=0.1)
    for batch in data[:3]:
        _step(family, optimizer, batch)
    twin = Line()
    twin.load_state_dict(family.state_dict())
    resumed = build_optimizer(twin, config, lr=0.1)
    load_optimizer_state(twin, resumed, optimizer_state_by_name(family, optimizer), where="here")
    for batch in data[3:]:
        _step(family, optimizer, batch)
        _step(twin, resumed, batch)
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in family.state_dict().items())


def test_moments_of_another_model_are_refused_by_name() -> None:
    family = Line()
    optimizer = build_optimizer(family, OptimConfig(), lr=0.1)
    _step(family, optimizer, torch.ones(2, 3))
    state = optimizer_state_by_name(family, optimizer)
    state["other.weight"] = state.pop("line.weight")
    with pytest.raises(ValueError, match=r"step-1: .*2 parameters differ, first 'line.weight'"):
        load_optimizer_state(family, optimizer, state, where="step-1")


def _step(family: Line, optimizer: torch.optim.Optimizer, batch: torch.Tensor) -> None:
    optimizer.zero_grad()
    family(batch, None).total.backward()
    optimizer.step()
