"""Resize to 256 and re-encode: the whole conversion beside its codec alone, and the codec beside Pillow's.

    python -m benchmarks.resize_speed [--photos 3000] [--sampling 4:2:0] [--rounds 5] [--peers VENV/bin/python] [--folder /dev/shm]

`codec` reads, decodes, resizes and encodes the photos with our functions and writes nothing; `pillow` does the same with Pillow
(bicubic, quality 90); `img2dataset` is the whole of that tool, one process and one thread. Figures as in `convert_speed`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.photos import add_photo_options, write_photos
from benchmarks.processes import ProcessSide, compare_processes, peer_sides


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the photos, measure, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_photo_options(parser, photos=3000)
    parser.add_argument("--rounds", type=int, default=5, help="how often each side runs")
    parser.add_argument(
        "--peers", help="the Python of an environment with the peers (extra `bench`); default: this one"
    )
    parser.add_argument(
        "--folder", help="where to work: a disk, or memory such as /dev/shm; default: the temporary folder"
    )
    options = parser.parse_args(arguments)
    originals = Path(os.environ.get("OSTRAKA_DATA", "../shared/data"))
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        write_photos(originals, folder, count=options.photos, sampling=options.sampling)
        sides = {
            "ours": ProcessSide(name="ours", overrides=("transforms=[{kind: resize_image, shorter_side: 256}]",)),
            "codec": ProcessSide(name="codec"),
            "pillow": ProcessSide(name="pillow"),
            **peer_sides(("img2dataset",), options.peers or sys.executable, ("resize",)),
        }
        print(
            json.dumps(compare_processes(sides, folder=folder, rounds=options.rounds, photos=options.photos), indent=2)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
