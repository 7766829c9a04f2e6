"""The training mechanics against the published loops: learning rate, parameter groups, three optimiser steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.families.vicha.published import export_published, import_published, published_names
from trainers.optim import (
    EpochCosineSchedule,
    Horizon,
    OptimConfig,
    build_optimizer,
    learning_rate,
    parameter_groups,
    set_learning_rate,
)


@pytest.mark.golden("vicha/lr_schedule")
def test_every_published_schedule_is_followed_step_by_step(case: Any) -> None:
    for entry in case.json("expected.json")["schedules"]:
        published, steps_per_epoch = entry["schedule"], entry["steps_per_epoch"]
        schedule = EpochCosineSchedule(
            lr=float(published["lr"]),
            min_lr=float(published["min_lr"]),
            warmup_lr=float(published["warmup_lr"]),
            warmup_units=published["warmup_epochs"],
        )
        horizon = Horizon(steps=published["epochs"] * steps_per_epoch, steps_per_epoch=steps_per_epoch)
        changes = {epoch * steps_per_epoch + iteration: rate for epoch, iteration, rate in entry["changes"]}
        rate = changes[0]
        for step in range(horizon.steps):
            rate = changes.get(step, rate)
            assert learning_rate(schedule, step, horizon) == pytest.approx(rate, rel=1e-9), (entry["name"], step)


@pytest.mark.golden("vicha/optimizer_groups")
def test_parameter_groups_are_the_published_ones(case: Any, vicha_family: Any) -> None:
    expected = case.json("expected.json")
    family = vicha_family(case.sibling(expected["model_case"]).config)
    released = published_names(family.config)
    decays = {group["weight_decay"]: set(group["parameters"]) for group in expected["groups"]}
    config = OptimConfig(
        weight_decay=max(decays), betas=tuple(expected["groups"][0]["betas"]), eps=expected["groups"][0]["eps"]
    )
    ours = {
        group.weight_decay: {released[name][0] for name in group.names} for group in parameter_groups(family, config)
    }
    assert ours == decays
    frozen = {released[name][0] for name, value in family.named_parameters() if not value.requires_grad}
    assert set(expected["frozen_parameters"]) - {"decoder_pos_embed"} <= frozen


@pytest.mark.golden("vicha/pretrain_three_steps")
def test_three_optimiser_steps_replay_the_reference(case: Any, vicha_family: Any, pair_batch: Any) -> None:
    family = vicha_family(case.sibling(case.config["config_case"]).config)
    import_published(family, case.weights())
    family.train()
    settings = case.config["optimizer"]
    config = OptimConfig(betas=tuple(settings["betas"]), eps=settings["eps"], weight_decay=settings["weight_decay"])
    optimizer = build_optimizer(family, config, lr=settings["lr"])
    set_learning_rate(optimizer, settings["lr"])
    published_terms = {
        "itc_total": ("contrast", "hierarchy"),
        "itm": ("match",),
        "mim": ("masked_image",),
        "mlm": ("masked_text",),
    }
    for step in range(case.config["steps"]):
        batch = pair_batch(case.inputs, prefix=f"step{step}.")
        optimizer.zero_grad(set_to_none=True)
        losses = family.step(batch, soften=float(case.inputs[f"step{step}.alpha"])).losses
        for published, ours in published_terms.items():
            found = sum(losses.terms[name] for name in ours)
            torch.testing.assert_close(found, case.expected[f"step{step}.loss_{published}"], rtol=1e-4, atol=1e-6)
        losses.total.backward()
        optimizer.step()
        released = export_published(family)
        torch.testing.assert_close(
            released["temp"].squeeze(), case.expected[f"step{step}.temp_after"].squeeze(), rtol=1e-4, atol=1e-6
        )
        assert torch.equal(released["queue_ptr"], case.expected[f"step{step}.queue_ptr_after"])
    final = {name.removeprefix("final."): value for name, value in case.expected.items() if name.startswith("final.")}
    assert final
    for name, value in final.items():
        torch.testing.assert_close(
            released[name], value, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
