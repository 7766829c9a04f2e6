"""Seconds, memory and the best rate of products on a device, CPU or CUDA."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.rounds import spread

# Dense bf16 TFLOP/s by the maker's data sheet (SXM), by a part of the device's name.
NOMINAL_BF16 = {"H100": 989.4, "H200": 989.4, "A100": 312.0}


@dataclass(frozen=True, slots=True)
class Device:
    """Where work runs; every time it is asked for, all work is finished first."""

    name: str

    def seconds(self, work: Callable[[], object]) -> float:
        """Time by the wall until the device is done."""
        self._wait()
        began = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - began

    def rounds(self, work: Callable[[], object], *, rounds: int, warm_up: int = 2) -> list[float]:
        """Time some work again and again, after `warm_up` uncounted runs."""
        for _ in range(warm_up):
            work()
        return [self.seconds(work) for _ in range(rounds)]

    def most_gib(self, work: Callable[[], object]) -> float | None:
        """GiB of the device at the most while some work runs; `None` on a CPU."""
        if self.name != "cuda":
            return None
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self.seconds(work)
        return round(torch.cuda.max_memory_allocated() / 2**30, 2)

    def describe(self) -> dict[str, Any]:
        """What the device is."""
        if self.name != "cuda":
            return {"device": "cpu", "threads": torch.get_num_threads(), "torch": torch.__version__}
        return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda}

    def nominal_bf16_flops(self) -> float | None:
        """The maker's figure, where it is known."""
        if self.name != "cuda":
            return None
        known = torch.cuda.get_device_name()
        return next((1e12 * rate for part, rate in NOMINAL_BF16.items() if part in known), None)

    def product_flops(self, dtype: torch.dtype, *, side: int, rounds: int = 5) -> float:
        """The best rate of a large square product."""
        left, right = (torch.rand(side, side, device=self.name, dtype=dtype) for _ in range(2))
        return 2.0 * side**3 / min(self.rounds(lambda: torch.mm(left, right), rounds=rounds))

    def free(self) -> None:
        """Give back what is no longer used."""
        gc.collect()
        if self.name == "cuda":
            torch.cuda.empty_cache()

    def _wait(self) -> None:
        if self.name == "cuda":
            torch.cuda.synchronize()


def measured_peaks(device: Device, *, side: int) -> dict[str, float]:
    """FLOP per second of large products by type: `bf16`, `fp32`, and on CUDA `tf32`."""
    peaks = {
        "bf16": device.product_flops(torch.bfloat16, side=side),
        "fp32": device.product_flops(torch.float32, side=side),
    }
    if device.name == "cuda":
        torch.set_float32_matmul_precision("high")
        peaks["tf32"] = device.product_flops(torch.float32, side=side)
        torch.set_float32_matmul_precision("highest")
    return peaks


def in_tera(rates: Mapping[str, float]) -> dict[str, float]:
    """Rates in TFLOP per second, to four figures."""
    return {name: float(f"{rate / 1e12:.4g}") for name, rate in rates.items()}


def rate_of(items: int, seconds: list[float]) -> dict[str, float]:
    """Items per second."""
    return spread([items / each for each in seconds])
