"""Raw pass-through: photos and captions to a committed dataset, beside `tar cf` of the same files and other tools' writers.

    python -m benchmarks.convert_speed [--photos 3000] [--rounds 5] [--peers VENV/bin/python] [--folder /dev/shm]

Each side runs in a process of its own and counts its CPU seconds (its children's too) and wall seconds after its imports. Ours is
the whole verb `shards` with checks of every picture, checksums, index, commit records and merge; `ours_decode` the same with
`check=decode`. `tar` is the floor. `ours_to_it_per_cpu_s` above 1: ours is quicker than that side.

All read the same photos out of the page cache (the first round is not counted) and write to the same disk. Every writer gets the
picture and its caption; ours also writes a JSON header for each record and forces what it has written to disk before it calls a
unit done, which the others do not. `tar_durable` and `webdataset_durable` are the same sides with their files forced to disk, too;
`webdataset_members` is webdataset given a header to write, the same three members that ours has.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.converters import DURABLE, MEMBERS
from benchmarks.photos import add_photo_options, write_photos
from benchmarks.processes import ProcessSide, compare_processes, peer_sides

PEERS = ("webdataset", "mds", "litdata", "img2dataset")


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
    peers = options.peers or sys.executable
    originals = Path(os.environ.get("OSTRAKA_DATA", "../shared/data"))
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        write_photos(originals, folder, count=options.photos, sampling=options.sampling)
        sides = {
            "ours": ProcessSide(name="ours"),
            "tar": ProcessSide(name="tar"),
            "tar_durable": ProcessSide(name="tar", overrides=(DURABLE,)),
            "ours_decode": ProcessSide(name="ours", overrides=("check=decode",)),
            **peer_sides(PEERS, peers),
            "webdataset_members": ProcessSide(name="webdataset", python=peers, overrides=(MEMBERS,)),
            "webdataset_durable": ProcessSide(name="webdataset", python=peers, overrides=(DURABLE,)),
            "ray_data": ProcessSide(name="ray_data"),
        }
        print(
            json.dumps(compare_processes(sides, folder=folder, rounds=options.rounds, photos=options.photos), indent=2)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
