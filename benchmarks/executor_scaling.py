"""Two Ray workers against one, on a Ray that is already running: photos resized to 256, in units of 100.

    python -m benchmarks.executor_scaling [--photos 3000] [--rounds 3]

`between_commits_ratio` leaves out what comes before the first commit record, which is start-up and not work. Needs a machine with
two free processors.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.photos import write_photos
from benchmarks.rounds import spread
from benchmarks.warm_ray import convert_on, warm_ray


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the photos, measure, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=3000, help="how many photos of 640x480")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side runs")
    parser.add_argument("--folder", help="where to work; default: the temporary folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        write_photos(Path(os.environ.get("OSTRAKA_DATA", "../shared/data")), folder, count=options.photos)
        whole: dict[int, list[float]] = {1: [], 2: []}
        work: dict[int, list[float]] = {1: [], 2: []}
        keys = ("transforms=[{kind: resize_image, shorter_side: 256}]", "records_per_shard=100")
        with warm_ray(processors=2) as address:
            for number in range(options.rounds + 1):
                for workers in (1, 2) if number % 2 else (2, 1):
                    output = folder / f"out-{number}-{workers}"
                    first, all_of_it = convert_on(address, folder, output, (*keys, f"workers={workers}"))
                    if number:  # the first round starts workers and fills caches
                        whole[workers].append(all_of_it)
                        work[workers].append(all_of_it - first)
    result = {
        "photos": options.photos,
        "one_worker_s": spread(whole[1]),
        "two_workers_s": spread(whole[2]),
        "ratio": spread([one / two for one, two in zip(whole[1], whole[2], strict=True)]),
        "between_commits_ratio": spread([one / two for one, two in zip(work[1], work[2], strict=True)]),
    }
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
