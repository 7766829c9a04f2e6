"""Choosing concepts: our exact search beside the matrix product alone and beside a loop over pictures.

    python -m benchmarks.selection pictures=20000 phrases=100000

Run it under `OMP_NUM_THREADS=1`; all sides count seconds of CPU, so that other work on the machine matters less.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.rounds import Side, Step, compare
from concepts.select import top_cosine

WIDTH, TOP_K = 512, 15
LOOPED = 200  # pictures of the loop over pictures, which is slow
PIECE = 1024, 8192  # pictures and phrases of one product of the floor

Halves = npt.NDArray[np.float16]
Floats = npt.NDArray[np.float32]


def unit_vectors(count: int, *, seed: int, width: int = WIDTH) -> Halves:
    """Random directions, (count, width)."""
    vectors = np.random.default_rng(seed).standard_normal((count, width), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float16)


def product_alone(pictures: Floats, phrases: Floats) -> None:
    """All cosines in float32, each piece over the one before it."""
    rows, columns = PIECE
    room = np.empty(rows * columns, np.float32)
    for first in range(0, len(phrases), columns):
        block = phrases[first : first + columns].T
        for start in range(0, len(pictures), rows):
            part = pictures[start : start + rows]
            np.matmul(part, block, out=room[: len(part) * block.shape[1]].reshape(len(part), -1))


def one_by_one(pictures: Floats, phrases: Floats) -> None:
    """The way of the original script: a product and a full sort for each picture."""
    for picture in pictures:
        np.argsort(-(phrases @ picture))[:TOP_K]


def cpu_timed(work: Callable[[], object]) -> Callable[[], float]:
    """Make a side's run of plain work: its CPU time."""

    def run() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return run


def measure(pictures: int, phrases: int, *, rounds: int) -> dict[str, Any]:
    """Compare all sides; the peak of memory is taken after ours ran and before the wide copies of the others are made."""
    images, concepts = unit_vectors(pictures, seed=0), unit_vectors(phrases, seed=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    top_cosine(images, concepts, top_k=TOP_K)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wide_images, wide_concepts = images.astype(np.float32), concepts.astype(np.float32)
    step = Step(
        name="selection",
        ours=Side(records=pictures, run=cpu_timed(lambda: top_cosine(images, concepts, top_k=TOP_K))),
        floor=Side(records=pictures, run=cpu_timed(lambda: product_alone(wide_images, wide_concepts))),
        floor_is="the float32 matrix product alone",
        peers={
            "loop_over_pictures": Side(
                records=min(LOOPED, pictures),
                run=cpu_timed(lambda: one_by_one(wide_images[:LOOPED], wide_concepts)),
            )
        },
    )
    return {
        "pictures": pictures,
        "phrases": phrases,
        "width": WIDTH,
        "top_k": TOP_K,
        "peak_memory_mib": round(after / 1024),
        "of_which_before_the_search_mib": round(before / 1024),
        **compare(step, rounds=rounds),
    }


def main() -> None:
    """Measure; print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="pictures=20000 phrases=100000 rounds=3")
    settings = {"pictures": 20_000, "phrases": 100_000, "rounds": 3}
    settings.update(
        {key: int(value) for key, _, value in (each.partition("=") for each in parser.parse_args().settings)}
    )
    print(json.dumps(measure(settings["pictures"], settings["phrases"], rounds=settings["rounds"]), indent=1))


if __name__ == "__main__":
    main()
