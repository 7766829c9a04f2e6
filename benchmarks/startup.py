"""Seconds from the command to work on a Ray that is already running: one photo is converted, and its commit record gives the time.

    python -m benchmarks.startup [--rounds 5]

That is Python's start, imports, attaching, sending the code, a worker's start and the one photo. The first run of all also pays for
unpacking the code on the node, and is told apart as `first_s`.
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
    parser.add_argument("--rounds", type=int, default=5, help="how often each side runs")
    parser.add_argument("--folder", help="where to work; default: the temporary folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        write_photos(Path(os.environ.get("OSTRAKA_DATA", "../shared/data")), folder, count=1)
        with warm_ray(processors=1) as address:
            seconds = [
                convert_on(address, folder, folder / f"out-{number}", ())[0] for number in range(options.rounds + 1)
            ]
    result = {"first_s": seconds[0], "start_s": spread(seconds[1:])}
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
