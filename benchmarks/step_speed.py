"""The pretraining step of ViCHA beside a straight implementation of the published one, in seconds of one CPU core.

    OMP_NUM_THREADS=1 python -m benchmarks.step_speed batch=4 rounds=3
    OMP_NUM_THREADS=1 python -m benchmarks.step_speed batch=2 rounds=2 options=checkpoint,channels_last

Losses are compared first, on equal weights. Then both take steps by turns, each optimiser step whole: twin, losses, gradients,
AdamW. The floating-point operations of both are counted, and the rate of one large matrix product is measured between the
steps, so that it is known what the machine could do at that moment. `options` measures each of checkpoint, channels_last, bf16
and compile against plain ours instead, in time and in the most memory that a step held. The base shape takes 14 GiB at batch 2.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.autograd import backward

from benchmarks.floors import count_flops
from benchmarks.rounds import spread
from benchmarks.step_sides import (
    ALPHA,
    SHAPES,
    Shape,
    as_published,
    compare_losses,
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

PRODUCT_SIDE = 2_048
LOSS_TOLERANCE = 1e-4  # relative, as of the golden cases
OPTIONS = ("checkpoint", "channels_last", "bf16", "compile")


def product_rate() -> float:
    """Floating-point operations per CPU second of one large fp32 product, torch's threads as they are."""
    left, right = torch.rand(2, PRODUCT_SIDE, PRODUCT_SIDE).unbind()
    return 2.0 * PRODUCT_SIDE**3 / core_s(lambda: torch.mm(left, right))


def core_s(work: Callable[[], object]) -> float:
    """CPU seconds of some work: of what shares the machine, these know the least."""
    began = time.process_time()
    work()
    return time.process_time() - began


def most_memory(work: Callable[[], object]) -> float:
    """GiB of this process at the most while some work runs; Linux alone can forget an earlier peak."""
    gc.collect()
    # What is free already would otherwise count, since the allocator keeps it.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")
    work()
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 2**20


def measure(shape: Shape, *, batch: int, rounds: int, dropout: float, words: int, concepts: int) -> dict[str, Any]:
    """Compare losses, count operations, and take `rounds` steps of both by turns."""
    torch.manual_seed(0)
    family = Vicha(shape_config(shape)).train()
    straight = straight_twin_of(family)
    pairs = random_pairs(family.config, batch, words=words, concepts=concepts, seed=1)
    for model in (family, straight):
        set_dropout(model, 0.0)
    differences = compare_losses(family, straight, pairs)
    if max(differences.values()) > LOSS_TOLERANCE:
        raise SystemExit(f"the two do not compute the same losses: {differences}")
    published = as_published(family, pairs)
    flops = {
        "ours": count_flops(lambda: backward(family.step(pairs, soften=ALPHA).losses.total)),
        "straight": count_flops(lambda: backward(total_of(straight(published, ALPHA)))),
    }
    for model in (family, straight):
        model.zero_grad(set_to_none=True)
        set_dropout(model, dropout)
    step, other = our_step(family), straight_step(straight)
    seconds, rates = by_turns({"ours": lambda: step(pairs, 0), "straight": lambda: other(published)}, rounds=rounds)
    rate = median(rates)
    return {
        "relative_difference_of_losses": {name: float(f"{value:.2g}") for name, value in differences.items()},
        "gflop_per_picture": {name: round(count / batch / 1e9, 1) for name, count in flops.items()},
        "flops_straight_to_ours": round(flops["straight"] / flops["ours"], 3),
        "product_gflop_per_s": spread([each / 1e9 for each in rates]),
        "cpu_s": {name: spread(spent) for name, spent in seconds.items()},
        "ours_to_straight": spread([b / a for a, b in zip(seconds["ours"], seconds["straight"], strict=True)]),
        "share_of_product_rate_by_the_straight_count": {
            name: spread([flops["straight"] / spent / rate for spent in each]) for name, each in seconds.items()
        },
    }


def by_turns(sides: Mapping[str, Callable[[], object]], *, rounds: int) -> tuple[dict[str, list[float]], list[float]]:
    """Run sides by turns, in an order that turns too, after one uncounted run of each; measure the machine before each run.

    Returns:
        CPU seconds by side and round, and the rates of the large product.
    """
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    rates = []
    for number in range(-1, rounds):
        for name in names if number % 2 else names[::-1]:
            rates.append(product_rate())
            spent = core_s(sides[name])
            if number >= 0:  # the first run allocates and compiles
                seconds[name].append(spent)
    return seconds, rates


def measure_option(name: str, shape: Shape, pairs: PairBatch, *, rounds: int, dropout: float) -> dict[str, Any]:
    """Take steps with and without one option by turns.

    Returns:
        The ratio of plain seconds to those with the option, above 1 where it is quicker; and GiB at the most of each.
    """
    torch.manual_seed(0)
    family = Vicha(shape_config(shape, dropout=dropout)).train()
    plain = our_step(family)
    plain(pairs, 0)
    if name == "channels_last":  # its moments must lie as its weights do, so it takes a family of its own
        other = Vicha(shape_config(shape, dropout=dropout)).train()
        optional = our_step(other.to(memory_format=torch.channels_last))  # type: ignore[call-overload]  # not in torch's stubs
    else:
        other = copy.deepcopy(family) if name == "compile" else family
        optional = our_step(other, precision="bf16" if name == "bf16" else "fp32", compiled=name == "compile")

    def with_option() -> None:
        if name == "checkpoint":
            checkpoint_activations(other)
        optional(pairs, 0)
        if name == "checkpoint":
            checkpoint_activations(other, on=False)

    sides: dict[str, Callable[[], object]] = {"plain": lambda: plain(pairs, 0), name: with_option}
    seconds, _ = by_turns(sides, rounds=rounds)
    return {
        "plain_to_it": spread([a / b for a, b in zip(seconds["plain"], seconds[name], strict=True)]),
        "most_gib": {side: round(most_memory(run), 2) for side, run in sides.items()},
    }


def main() -> None:
    """Measure; print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "settings",
        nargs="*",
        help="shape=base|small|tiny batch= rounds= dropout= words= concepts= threads= options=a,b",
    )
    said = dict(each.split("=", 1) for each in parser.parse_args().settings)
    torch.set_num_threads(int(said.get("threads", 1)))
    if said.get("shape", "base") not in SHAPES:
        raise SystemExit(f"shape={said['shape']}: shapes are {', '.join(SHAPES)}")
    shape: Shape = said.get("shape", "base")
    batch, rounds, dropout = int(said.get("batch", 2)), int(said.get("rounds", 3)), float(said.get("dropout", 0.1))
    words, concepts = int(said.get("words", 25)), int(said.get("concepts", 12))
    options = [each for each in said.get("options", "").split(",") if each]
    if unknown := set(options) - set(OPTIONS):
        raise SystemExit(f"options={','.join(sorted(unknown))}: known are {', '.join(OPTIONS)}")
    result: dict[str, Any] = {
        **{"shape": shape, "batch": batch, "rounds": rounds, "dropout": dropout},
        "threads": torch.get_num_threads(),
    }
    if options:
        pairs = random_pairs(shape_config(shape), batch, words=words, concepts=concepts, seed=1)
        result["options"] = {
            name: measure_option(name, shape, pairs, rounds=rounds, dropout=dropout) for name in options
        }
    else:
        result |= measure(shape, batch=batch, rounds=rounds, dropout=dropout, words=words, concepts=concepts)
    print(json.dumps({**result, "started": time.strftime("%Y-%m-%d")}, indent=1))


if __name__ == "__main__":
    main()
