"""The straight implementation, with which speeds are compared, computes what the published code does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.straight_vicha import PublishedBatch, StraightVicha

# What a case's file may hold for other variants than the one that is built.
OTHER_VARIANTS = ("kw_", "vision_proj_hidden", "text_proj_hidden")


@pytest.fixture
def straight(vicha_family: Any) -> Callable[..., StraightVicha]:
    """Build the straight model of a case's config with given weights, every one of which must find its place."""

    def build(published: Mapping[str, Any], weights: Mapping[str, Tensor]) -> StraightVicha:
        model = StraightVicha(vicha_family(published).config)
        report = model.load_state_dict(dict(weights), strict=False)
        given_elsewhere = {"image_queue", "text_queue", "queue_ptr"}
        assert set(report.missing_keys) <= given_elsewhere
        assert all(key.startswith(OTHER_VARIANTS) or "position_ids" in key for key in report.unexpected_keys)
        return model.train()

    return build


def _batch(inputs: Mapping[str, Tensor], prefix: str = "") -> PublishedBatch:
    given = {name.removeprefix(prefix): value for name, value in inputs.items() if name.startswith(prefix)}
    for side in ("text", "kw"):
        if f"{side}_input_ids" in given:  # masks that a case leaves out are "id is not padding"
            given.setdefault(f"{side}_attention_mask", (given[f"{side}_input_ids"] != 0).long())
    known = {field.name for field in fields(PublishedBatch)}
    return PublishedBatch(**{name: value for name, value in given.items() if name in known})


def _weights(case: Any) -> dict[str, Tensor]:
    queues = ("image_queue", "text_queue", "queue_ptr")
    weights: dict[str, Tensor] = case.weights() | {name: case.inputs[name] for name in queues}
    return weights


def _alphas(case: Any) -> Iterator[tuple[float, str]]:
    for value in case.inputs["alpha_values"].tolist():
        yield value, f"alpha{round(value, 6)}."


@pytest.mark.golden("vicha/pretrain")
def test_losses_equal_the_reference_at_every_alpha(case: Any, straight: Any) -> None:
    for alpha, prefix in _alphas(case):
        losses = straight(case.config, _weights(case))(_batch(case.inputs), alpha)
        for ours, theirs in {"itc": "itc_total", "itm": "itm", "mlm": "mlm"}.items():
            expected = case.expected[f"{prefix}loss_{theirs}"]
            torch.testing.assert_close(losses[ours], expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(sum(losses.values()), case.expected[f"{prefix}loss_total"], rtol=1e-4, atol=1e-6)


@pytest.mark.golden("vicha/pretrain")
def test_gradients_twin_and_queues_equal_the_reference(case: Any, straight: Any, close: Any) -> None:
    model = straight(case.config, _weights(case))
    sum(model(_batch(case.inputs), case.config["alpha"]).values()).backward()
    found = {name: value.grad.norm().item() for name, value in model.named_parameters() if value.grad is not None}
    norms = case.json("grad_norms.json")
    assert found.keys() == norms.keys()
    for name, norm in norms.items():
        assert found[name] == pytest.approx(norm, rel=1e-3, abs=1e-6), name
    state = model.state_dict()
    after = {name.partition(".")[2]: value for name, value in case.expected.items() if "_after." in name}
    assert after
    for name, expected in after.items():
        close(state[name], expected, name, atol=1e-6)


@pytest.mark.golden("vicha/pretrain_three_steps")
def test_three_optimiser_steps_replay_the_reference(case: Any, straight: Any) -> None:
    model = straight(case.sibling(case.config["config_case"]).config, case.weights())
    settings = case.config["optimizer"]
    trainable = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    spared = [value.ndim == 1 or name.endswith(".bias") for name, value in trainable]
    groups = [
        {"params": [value for (_, value), spare in zip(trainable, spared, strict=True) if spare is keeps], **decay}
        for keeps, decay in ((True, {"weight_decay": 0.0}), (False, {"weight_decay": settings["weight_decay"]}))
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings["lr"], betas=settings["betas"], eps=settings["eps"])
    for step in range(case.config["steps"]):
        losses = model(_batch(case.inputs, f"step{step}."), float(case.inputs[f"step{step}.alpha"]))
        for ours, theirs in {"itc": "itc_total", "itm": "itm", "mim": "mim", "mlm": "mlm"}.items():
            expected = case.expected[f"step{step}.loss_{theirs}"]
            torch.testing.assert_close(losses[ours], expected, rtol=1e-4, atol=1e-6)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    state = model.state_dict()
    final = {name.removeprefix("final."): value for name, value in case.expected.items() if name.startswith("final.")}
    assert final
    torch.testing.assert_close({name: state[name] for name in final}, final, rtol=0, atol=1e-5)
