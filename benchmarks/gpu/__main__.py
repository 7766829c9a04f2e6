"""Measure a device and print one JSON object.

    python -m benchmarks.gpu                        on a machine with a CUDA device: ten minutes at most
    python -m benchmarks.gpu --device cpu --tiny    anywhere, in seconds, to see that it runs
    python -m benchmarks.gpu --parts peak,step      only some of: peak, step, clip, loader

`step` is ViCHA's pretraining step, base size at 256 px; `clip` the concept step; `loader` the training loader, and the share of a
step that is spent waiting for it with eight workers per GPU: of the quickest measured step, or of `--step-per-s`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

PARTS = ("peak", "step", "clip", "loader")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for; 2 where there is no such device or no library to begin with."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="shapes that a CPU runs in seconds")
    parser.add_argument("--batch", type=int, help="pictures of a step (64; tiny: 4)")
    parser.add_argument("--rounds", type=int, help="counted runs of each measurement (10; tiny: 1)")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, separated by commas")
    parser.add_argument("--workers", type=int, help="loader processes (8; tiny: 1)")
    parser.add_argument("--step-per-s", type=float, help="pictures per second of a step that was measured elsewhere")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled step")
    options = parser.parse_args(arguments)
    parts = options.parts.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"--parts {','.join(unknown)}: known are {', '.join(PARTS)}")
    try:
        importlib.import_module("benchmarks.step_sides")
    except ModuleNotFoundError as problem:
        print(f"python -m benchmarks.gpu needs {problem.name}; bring its wheel (pydantic, xxhash)", file=sys.stderr)
        return 2
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device here; use --device cpu --tiny to see that it runs", file=sys.stderr)
        return 2
    print(json.dumps(measure(options, parts), indent=1))
    return 0


def measure(options: argparse.Namespace, parts: Sequence[str]) -> dict[str, Any]:
    """Run the parts; one whose libraries are missing says which."""
    from benchmarks.gpu.device import Device, in_tera, measured_peaks
    from benchmarks.gpu.encoder import measure_encoder
    from benchmarks.gpu.feeding import WORKERS_PER_GPU, measure_loader, quickest_step, wait_of
    from benchmarks.gpu.pretraining import measure_steps

    tiny = options.tiny
    device = Device(options.device)
    batch, rounds = options.batch or (4 if tiny else 64), options.rounds or (1 if tiny else 10)
    workers = options.workers or (1 if tiny else WORKERS_PER_GPU)
    side = 8_192 if options.device == "cuda" else 1_024
    peaks = measured_peaks(device, side=256 if tiny else side)
    found: dict[str, Any] = {**device.describe(), "tiny": tiny, "started": time.strftime("%Y-%m-%d")}
    if "peak" in parts:
        found["product_tflop_per_s"] = in_tera(peaks)
    if "step" in parts:
        # Compiling for a CPU takes minutes and gains nothing.
        compiled = options.device == "cuda" and not options.no_compile
        found["step"] = measure_steps(
            device, shape="tiny" if tiny else "base", batch=batch, rounds=rounds, peaks=peaks, compiled=compiled
        )
    if "clip" in parts:
        found["clip"] = _if_importable(
            lambda: measure_encoder(
                device, tiny=tiny, pictures=8 if tiny else 4_096, batch=4 if tiny else 256, rounds=min(rounds, 3)
            )
        )
    if "loader" in parts:
        found["loader"] = _if_importable(
            lambda: measure_loader(
                photos=24 if tiny else 2_048,
                batch=8 if tiny else 64,
                image_size=32 if tiny else 256,
                rounds=min(rounds, 3),
                workers=workers,
            )
        )
        step_per_s = options.step_per_s or (quickest_step(found["step"]) if "step" in parts else None)
        found["waiting"] = wait_of(step_per_s, found["loader"])
    return found


def _if_importable(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    from shards.errors import MissingLibraryError

    try:
        return work()
    except (ModuleNotFoundError, MissingLibraryError) as problem:
        return {"absent": str(problem)}


if __name__ == "__main__":
    sys.exit(main())
