"""ViCHA's pretraining step on a device: ours in several ways and the straight one; time, share of the peak, memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.autograd import backward

from benchmarks.floors import count_flops
from benchmarks.gpu.device import Device
from benchmarks.rounds import spread
from benchmarks.step_sides import (
    ALPHA,
    Shape,
    as_published,
    our_step,
    random_pairs,
    set_dropout,
    shape_config,
    straight_step,
    straight_twin_of,
    total_of,
)
from model.families.vicha.batch import PairBatch
from model.families.vicha.model import Vicha
from model.layers.layer import checkpoint_activations
from trainers.step import Precision

WORDS, CONCEPTS = 25, 12
COUNTED = 2  # pictures whose operations are counted; all but the contrast among the batch grows in proportion


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of running our step."""

    precision: Precision = "bf16"
    compiled: bool = False
    checkpointed: bool = False
    channels_last: bool = False


OURS: Mapping[str, Way] = {
    "ours_bf16": Way(),
    "ours_bf16_compiled": Way(compiled=True),
    "ours_bf16_checkpointed": Way(checkpointed=True),
    "ours_bf16_channels_last": Way(channels_last=True),
    "ours_fp32": Way(precision="fp32"),
}


def measure_steps(
    device: Device, *, shape: Shape, batch: int, rounds: int, peaks: Mapping[str, float], compiled: bool
) -> dict[str, Any]:
    """Time every way of the step at one batch size.

    Args:
        device: where.
        shape: of the model.
        batch: pictures.
        rounds: counted steps of each way.
        peaks: measured FLOP per second of products, by type.
        compiled: whether the compiled way is tried, which takes a minute or more.

    Returns:
        Operations per picture; for each way seconds, GiB at the most, and the share of the bf16 peak by the counted operations of
        our step and of the straight one; and how many times the straight step in single precision takes longer.
    """
    flops = _counted(device, shape)
    ways = {name: way for name, way in OURS.items() if compiled or not way.compiled}
    found = {name: _fitting(device, partial(_ours, device, shape, batch, way, rounds)) for name, way in ways.items()}
    straight_way = partial(_straight, device, shape, batch, rounds)
    found["straight_fp32"] = _fitting(device, straight_way)
    if device.name == "cuda":
        torch.set_float32_matmul_precision("high")
        found["straight_tf32"] = _fitting(device, straight_way)
        torch.set_float32_matmul_precision("highest")
    straight = found["straight_fp32"].get("seconds")
    nominal = device.nominal_bf16_flops()
    for name, figures in found.items():
        if "seconds" not in figures:
            continue
        seconds = figures["seconds"]["median"]
        if name.startswith("ours"):
            done = flops["ours"] * batch / seconds
            figures["share_of_measured_bf16_peak"] = round(done / peaks["bf16"], 4)
            figures["share_by_straight_count"] = round(flops["straight"] * batch / seconds / peaks["bf16"], 4)
            if nominal is not None:
                figures["share_of_nominal_bf16_peak"] = round(done / nominal, 4)
        if straight is not None:
            figures["straight_fp32_to_it"] = round(straight["median"] / seconds, 3)
    return {
        "shape": shape,
        "batch": batch,
        "gflop_per_picture": {name: round(count / 1e9, 4) for name, count in flops.items()},
        "ways": found,
    }


def _counted(device: Device, shape: Shape) -> dict[str, float]:
    """Operations per picture of forward and backward, of both implementations."""
    family, pairs = _model(device, shape), _pairs(device, shape, COUNTED)
    straight = straight_twin_of(family)
    for model in (family, straight):
        set_dropout(model, 0.0)
    published = as_published(family, pairs)
    return {
        "ours": count_flops(lambda: backward(family.step(pairs, soften=ALPHA).losses.total)) / COUNTED,
        "straight": count_flops(lambda: backward(total_of(straight(published, ALPHA)))) / COUNTED,
    }


def _ours(device: Device, shape: Shape, batch: int, way: Way, rounds: int) -> dict[str, Any]:
    family, pairs = _model(device, shape), _pairs(device, shape, batch)
    if way.channels_last:
        family.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in torch's stubs
    if way.checkpointed:
        checkpoint_activations(family)
    step = our_step(family, precision=way.precision, compiled=way.compiled)
    return _timed(device, lambda: step(pairs, 0), batch=batch, rounds=rounds)


def _straight(device: Device, shape: Shape, batch: int, rounds: int) -> dict[str, Any]:
    family, pairs = _model(device, shape), _pairs(device, shape, batch)
    straight, published = straight_twin_of(family), as_published(family, pairs)
    del family
    step = straight_step(straight)
    return _timed(device, lambda: step(published), batch=batch, rounds=rounds)


def _timed(device: Device, work: Callable[[], object], *, batch: int, rounds: int) -> dict[str, Any]:
    seconds = device.rounds(work, rounds=rounds, warm_up=3)
    figures = {"seconds": spread(seconds), "pictures_per_s": spread([batch / each for each in seconds])}
    return {**figures, "most_gib": device.most_gib(work)}


def _fitting(device: Device, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do some work, or say that the device's memory does not hold it."""
    try:
        return work()
    except torch.OutOfMemoryError:
        return {"absent": "out of memory"}
    finally:
        device.free()


def _model(device: Device, shape: Shape) -> Vicha:
    torch.manual_seed(0)
    return Vicha(shape_config(shape)).to(device.name).train()


def _pairs(device: Device, shape: Shape, count: int) -> PairBatch:
    return random_pairs(shape_config(shape), count, words=WORDS, concepts=CONCEPTS, seed=1).to(device.name)
