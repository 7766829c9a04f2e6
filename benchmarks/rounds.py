"""Timing sides of a comparison by turns, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way of doing a piece of work."""

    records: int  # that one run handles
    run: Callable[[], float]  # does it once; gives the seconds that count


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of ours, the least that the machine could spend on it, and what others spend."""

    name: str
    ours: Side
    floor: Side
    floor_is: str
    peers: Mapping[str, Side] = field(default_factory=dict)


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Make a side's run of plain work: its wall time."""

    def run() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return run


def timed_in_fresh_folder(root: Path, work: Callable[[Path], object]) -> Callable[[], float]:
    """Make a side's run of work that writes: each time into an empty folder, which goes afterwards, untimed."""

    def run() -> float:
        folder = Path(tempfile.mkdtemp(dir=root))
        try:
            started = time.perf_counter()
            work(folder)
            return time.perf_counter() - started
        finally:
            shutil.rmtree(folder)

    return run


def compare(step: Step, *, rounds: int) -> dict[str, Any]:
    """Run all sides of a step by turns, in a turning order, after one uncounted run of each.

    Returns:
        Records per second of every side, and the ratios of our speed to each other side's within the same round.
    """
    sides = {"ours": step.ours, "floor": step.floor, **step.peers}
    names = list(sides)
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for side in sides.values():
        side.run()
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            speeds[name].append(sides[name].records / sides[name].run())
    result: dict[str, Any] = {
        "records": step.ours.records,
        "ours_records_per_s": spread(speeds["ours"]),
        "floor_records_per_s": spread(speeds["floor"]),
        "ours_to_floor": spread(_ratios(speeds["ours"], speeds["floor"])),
        "floor_is": step.floor_is,
    }
    for name in step.peers:
        result[f"{name}_records_per_s"] = spread(speeds[name])
        result[f"ours_to_{name}"] = spread(_ratios(speeds["ours"], speeds[name]))
    return result


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and largest, to four significant figures."""
    return {name: float(f"{of(values):.4g}") for name, of in (("median", median), ("min", min), ("max", max))}


def _ratios(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    return [mine / other for mine, other in zip(ours, others, strict=True)]
