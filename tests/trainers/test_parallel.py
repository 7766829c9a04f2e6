"""A copy on each rank or layers in shards: the same losses, whatever is sharded, and checkpoints that pass between them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model.families.vicha import Config, build
from shards.errors import ConfigError
from tests.trainers.ranks import on_ranks
from tests.worlds import TINY_FAMILY
from trainers.checkpoint import find_checkpoint
from trainers.config import TrainConfig
from trainers.distributed import Group
from trainers.parallel import clip_gradients, gradient_norm, sharding_units
from trainers.presence import Termination
from trainers.trainer import train

Tiny = Callable[..., dict[str, Any]]


def _family(**changes: Any) -> nn.Module:
    values = {name: value for name, value in TINY_FAMILY.items() if name != "kind"} | changes
    return build(Config.model_validate(values))


def test_the_layers_of_towers_are_sharded_and_lone_matrices_are_not() -> None:
    family = _family()
    units = sharding_units(family)
    names = {module: name for name, module in family.named_modules()}
    found = {names[unit] for unit in units}
    assert {f"{side}.image.layers.{place}" for side in ("student", "twin") for place in range(3)} <= found
    assert not any("projections" in name for name in found)
    owned = [parameter for unit in units for parameter in unit.parameters()]
    assert len(owned) == len(set(owned))


def test_layers_that_share_weights_are_sharded_together() -> None:
    lone = {"contrast", "hierarchy", "masked_image"}
    values = {name: value for name, value in TINY_FAMILY.items() if name not in {*lone, "kind"}}
    family = build(Config.model_validate(values | {"head": {"kind": "compare"}}))
    names = {module: name for name, module in family.named_modules()}
    found = {names[unit] for unit in sharding_units(family)}
    assert "student.fusion" in found
    assert not any(name.startswith("student.fusion.") for name in found)


def _run_all(group: Group, runs: list[tuple[dict[str, Any], int | None]]) -> None:
    """Train each config, asking it to end after so many steps."""
    for values, stop_after in runs:
        termination = Termination()

        def end(
            done: int, steps: int, interval: object, at: int | None = stop_after, here: Termination = termination
        ) -> None:
            if done == at:
                here.ask()

        train(TrainConfig.model_validate(values), on_step=end, lines=False, termination=termination)


def _numbers(values: dict[str, Any], name: str) -> list[float]:
    rows = [json.loads(line) for line in (Path(values["output"]) / "metrics.jsonl").read_text().splitlines()]
    return [row["value"] for row in rows if row["name"] == name]


def test_sharded_training_has_the_losses_and_gradients_of_copies_and_goes_on_in_either_way(
    tmp_path: Path, tiny_training: Tiny
) -> None:
    def run(name: str, **changes: Any) -> dict[str, Any]:
        return tiny_training(output=str(tmp_path / name), log_every=1, checkpoint_every=100, **changes)

    copies, sharded = run("copies"), run("sharded", parallel="fsdp")
    spread = {"parallel": "fsdp", "fsdp": {"twin": "replicated", "queue": "sharded"}}
    other, pieces = run("other", **spread), {"checkpoint_form": "sharded"}
    parts, sharded_parts = (
        run("parts", micro_batches=2),
        run("sharded_parts", micro_batches=2, parallel="fsdp", checkpoint_activations=True),
    )
    half, sharded_half = run("half", precision="bf16"), run("sharded_half", precision="bf16", parallel="fsdp")
    there, back = run("there"), run("back", **spread, **pieces)
    on_ranks(
        _run_all,
        [
            *((values, None) for values in (copies, sharded, other, parts, sharded_parts, half, sharded_half)),
            *((there, 3), ({**there, "parallel": "fsdp", **pieces}, None)),
            *((back, 3), ({**back, "parallel": "ddp", "checkpoint_form": "whole"}, None)),
        ],
    )
    for values, expected in (
        (sharded, copies),
        (other, copies),
        (sharded_parts, parts),
        (there, copies),
        (back, copies),
    ):
        for name in ("loss", "loss/contrast", "loss/masked_text", "grad_norm"):
            assert _numbers(values, name) == pytest.approx(_numbers(expected, name), rel=1e-4), (values["output"], name)
    assert _numbers(sharded_half, "loss") == pytest.approx(_numbers(half, "loss"), rel=2e-2)
    ends = {Path(values["output"]).name: find_checkpoint(Path(values["output"])) for values in (copies, there, back)}
    assert [ends[name].form for name in ("copies", "there", "back")] == ["whole", "sharded", "whole"]
    expected_tensors = ends["copies"].tensors()
    for name in ("there", "back"):
        tensors = ends[name].tensors()
        assert tensors.keys() == expected_tensors.keys()
        for key, value in expected_tensors.items():
            torch.testing.assert_close(
                tensors[key], value, rtol=1e-3, atol=5e-4
            )  # keys have no gradient but rounding, which Adam enlarges
    moments, expected_moments = ends["there"].optimizer_state(), ends["copies"].optimizer_state()
    assert moments.keys() == expected_moments.keys()
    assert all(moments[name]["step"] == expected_moments[name]["step"] == 6 for name in moments)


def test_one_process_is_told_that_it_cannot_shard(tiny_training: Tiny) -> None:
    with pytest.raises(ConfigError, match="parallel=fsdp shards a model over several processes and this run has one"):
        train(TrainConfig.model_validate(tiny_training(parallel="fsdp")), lines=False)


def test_gradients_are_clipped_to_their_norm_together() -> None:
    layers = nn.ModuleList(nn.Linear(3, 2) for _ in range(2))
    for number, parameter in enumerate(layers.parameters()):
        parameter.grad = torch.full_like(parameter, number + 1.0)
    expected = nn.utils.get_total_norm(
        [parameter.grad for parameter in layers.parameters() if parameter.grad is not None]
    )
    norm = gradient_norm(layers.parameters())
    assert norm == pytest.approx(float(expected))
    clip_gradients(list(layers.parameters()), norm, limit=1e9)
    assert gradient_norm(layers.parameters()) == pytest.approx(float(expected))
    clip_gradients(list(layers.parameters()), norm, limit=0.5)
    assert gradient_norm(layers.parameters()) == pytest.approx(0.5, rel=1e-4)
