"""The training read, decode → RandomResizedCrop 256 → tensor: ours beside webdataset with the stock Pillow recipe, and the codec.

    python -m benchmarks.training_read [--photos 600] [--sampling 4:2:0] [--rounds 7] [--interpolation bilinear] [--folder /dev/shm]

Every side draws crops with torchvision's stock scale and ratio, and resizes with the same filter. `floor` is the codec alone:
the JPEGs in memory, decoded whole, cut and resized in one loop; ours also reads, checks, parses, shuffles and stacks.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.read_speed import add_options, photo_dataset, reader
from benchmarks.turns import compare_in_turns


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the dataset, measure, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, photos=600, rounds=7)
    parser.add_argument("--interpolation", choices=("bilinear", "bicubic"), default="bilinear", help="of all sides")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = photo_dataset(Path(place), photos=options.photos, sampling=options.sampling)
        sides = {"ours": "ours_train", "floor": "codec", "webdataset": "webdataset_train"}
        figures = compare_in_turns(
            {name: reader(side, folder, options.interpolation) for name, side in sides.items()},
            rounds=options.rounds,
            clock=options.clock,
            claim=f"training read: decode, RandomResizedCrop 256 ({options.interpolation}), tensor",
            floor="floor",
            floor_is="the codec alone: JPEGs in memory decoded whole, cut and resized in one loop",
        )
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
