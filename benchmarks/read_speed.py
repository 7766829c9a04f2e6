"""Raw records, the checksum of each checked, beside `read()` of the same tars and other tools' readers.

    python -m benchmarks.read_speed [--photos 2000] [--rounds 9] [--peers VENV/bin/python] [--folder /dev/shm] [--clock cpu_s]

`ours` reads the members of every record in file order, as the peers do, and checks them; `ours_stream` reads records in shuffled
training order and parses their headers, too. No peer checks anything. Every file is in memory after the first, uncounted round.

Readers differ in what they hand out: webdataset bytes, ours views of what it has read and checked, LitData copies (0.2.50) or
views of a mapped file (0.2.76), of which nothing has been read until somebody looks. So everything is measured three times, by
what a consumer, the same for all, does with each picture: nothing (`handed_out`), reading each of its bytes once, as a decoder
does (`read`), and asking for `bytes` of its own (`bytes`). `floor` has no consumer: it is the same in all three.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.converters import ours
from benchmarks.photos import Sampling, add_photo_options, write_photos
from benchmarks.readers import HOWS
from benchmarks.turns import compare_in_turns


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the dataset, measure, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, photos=2000, rounds=9)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = photo_dataset(Path(place), photos=options.photos, sampling=options.sampling)
        figures = {how: _compared(folder, how, options) for how in HOWS}
    print(json.dumps(figures, indent=1))
    return 0


def _compared(folder: Path, how: str, options: argparse.Namespace) -> dict[str, Any]:
    return compare_in_turns(
        {
            "ours": reader("ours_raw", folder, how),
            "ours_stream": reader("ours_stream", folder, how),
            "floor": reader("floor_read", folder),
            "webdataset": reader("webdataset_raw", folder, how),
            "litdata": reader("litdata_raw", folder, how, python=options.peers),
        },
        rounds=options.rounds,
        clock=options.clock,
        claim=f"raw records, each checked against its checksum, pictures {how}",
        floor="floor",
        floor_is="read() of the same tars, a megabyte at a time",
    )


def add_options(parser: argparse.ArgumentParser, *, photos: int, rounds: int) -> None:
    """What every benchmark over photos can be asked for."""
    add_photo_options(parser, photos=photos)
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each side runs")
    parser.add_argument(
        "--peers", default=sys.executable, help="the Python of an environment with the peers; default: this one"
    )
    parser.add_argument(
        "--folder", help="where to work: a disk, or memory such as /dev/shm; default: the temporary folder"
    )
    parser.add_argument("--clock", choices=("cpu_s", "wall_s"), default="cpu_s", help="the seconds that count")


def photo_dataset(folder: Path, *, photos: int, sampling: Sampling = "original") -> Path:
    """Write photos of 640x480 and convert them, as they are, into `data`."""
    write_photos(Path(os.environ.get("OSTRAKA_DATA", "../shared/data")), folder, count=photos, sampling=sampling)
    ours(folder, folder / "data", ())()
    return folder


def reader(side: str, folder: Path, *rest: str, python: str = sys.executable) -> list[str]:
    """The command line of a reading side."""
    return [python, "-m", "benchmarks.readers", side, str(folder), *rest]


if __name__ == "__main__":
    sys.exit(main())
