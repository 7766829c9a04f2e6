"""Sides of a comparison that each run in a process of their own, by turns, and the ratios of what they cost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rounds import spread

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSide:
    """A side of `benchmarks.converters`, and the Python that runs it."""

    name: str
    python: str = sys.executable
    overrides: tuple[str, ...] = field(default=())


def peer_sides(names: Sequence[str], python: str, overrides: tuple[str, ...] = ()) -> dict[str, ProcessSide]:
    """Other tools by name, run by the Python of an environment that has them."""
    return {name: ProcessSide(name=name, python=python, overrides=overrides) for name in names}


def compare_processes(sides: Mapping[str, ProcessSide], *, folder: Path, rounds: int, photos: int) -> dict[str, Any]:
    """Run every side once a round, in a turning order, each time into an empty folder beside the photos.

    Args:
        sides: `ours` and what it is compared with.
        folder: holds the photos; outputs go below it, so that every side writes to the same disk.
        rounds: how often; one more comes first and is not counted.
        photos: how many there are.

    Returns:
        CPU and wall seconds of each side, its photos per CPU second, and the ratio of ours to it within each round, above 1
        where ours is quicker. A side that does not run is named under `absent` with the end of what it said.
    """
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    absent: dict[str, str] = {}
    names = list(sides)
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            if name in absent:
                continue
            cost = _run(sides[name], folder)
            if isinstance(cost, str):
                absent[name] = cost
            elif number:
                costs[name].append(cost)
    if "ours" in absent:
        raise SystemExit(f"ours does not run: {absent['ours']}")
    result: dict[str, Any] = {"photos": photos, "rounds": rounds, "absent": absent}
    for name in names:
        if name in absent:
            continue
        result[name] = {
            "cpu_s": spread([cost["cpu_s"] for cost in costs[name]]),
            "wall_s": spread([cost["wall_s"] for cost in costs[name]]),
            "photos_per_cpu_s": spread([photos / cost["cpu_s"] for cost in costs[name]]),
            "output_bytes": costs[name][0]["bytes"],
        }
        for clock in ("cpu", "wall"):
            ratios = [
                other[f"{clock}_s"] / own[f"{clock}_s"] for other, own in zip(costs[name], costs["ours"], strict=True)
            ]
            result[name][f"ours_to_it_per_{clock}_s"] = spread(ratios)
    return result


def _run(side: ProcessSide, folder: Path) -> dict[str, float] | str:
    work = Path(tempfile.mkdtemp(dir=folder, prefix="output-"))
    # One thread for everybody: what counts is work done, and threads of one side would take the other processors.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    command = [
        side.python,
        "-m",
        "benchmarks.converters",
        side.name,
        str(folder),
        str(work / "output"),
        *side.overrides,
    ]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if done.returncode:
            return done.stderr.strip()[-300:]
        cost: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
        return cost
    except OSError as problem:
        return str(problem)
    except subprocess.TimeoutExpired:
        return f"it took more than {TIMEOUT_S} s"
    finally:
        shutil.rmtree(work, ignore_errors=True)
