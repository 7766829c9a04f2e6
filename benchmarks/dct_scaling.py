"""What `augment.dct_scaling` gains and what it changes: crops of photos at a size that lets them shrink, with it and without.

    python -m benchmarks.dct_scaling [--photos 200] [--rounds 7] [--size 128] [--interpolation bicubic]

Ours is the training view with scaling, the floor the same view without. Photos are of 640x480, so that at the usual sizes few
crops could shrink: `--size` stands for what larger photos meet at theirs. The differences are of crops that did shrink, in
levels of 255: the mean, the 99th percentile and the largest over all their values.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.photos import HEIGHT, WIDTH, write_photos
from benchmarks.rounds import Side, Step, compare
from shards.address import example_rng
from shards.records import Caption, Media, Origin, Record


def main(arguments: Sequence[str] | None = None) -> int:
    """Show every photo both ways, by turns, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200, help="how many photos of 640x480")
    parser.add_argument("--rounds", type=int, default=7, help="how often each side runs")
    parser.add_argument("--size", type=int, default=128, help="sides of the pictures that a model sees")
    parser.add_argument("--interpolation", choices=("bilinear", "bicubic"), default="bicubic", help="of both sides")
    options = parser.parse_args(arguments)
    from trainers.augment import AugmentConfig, TrainView, shrink_of

    config = AugmentConfig(interpolation=options.interpolation)
    exact = TrainView(options.size, config)
    scaled = TrainView(options.size, config.model_copy(update={"dct_scaling": True}))
    with tempfile.TemporaryDirectory() as folder:
        photos = write_photos(
            Path(os.environ.get("OSTRAKA_DATA", "../shared/data")), Path(folder), count=options.photos
        )
        records = [_record(path) for path in sorted(photos.iterdir())]

    def side(view: TrainView) -> Side:
        def run() -> float:
            began = time.process_time()
            for record in records:
                view(record, example_rng(0, 0, record.key))
            return time.process_time() - began

        return Side(records=len(records), run=run)

    shrinks = [shrink_of(exact.draw(HEIGHT, WIDTH, example_rng(0, 0, each.key)).crop, options.size) for each in records]
    differences = [
        (exact(record, example_rng(0, 0, record.key)).int() - scaled(record, example_rng(0, 0, record.key)).int()).abs()
        for record, shrink in zip(records, shrinks, strict=True)
        if shrink > 1
    ]
    step = Step(name="training view", ours=side(scaled), floor=side(exact), floor_is="the same without scaling")
    figures = compare(step, rounds=options.rounds)
    figures |= {"size": options.size, "share_of_crops_that_shrink": len(differences) / len(records)}
    if differences:
        levels = np.concatenate([each.flatten().numpy() for each in differences])
        figures["levels_of_255"] = {
            "mean": float(levels.mean()),
            "percentile_99": float(np.percentile(levels, 99)),
            "largest": int(levels.max()),
        }
    print(json.dumps(figures, indent=1))
    return 0


def _record(path: Path) -> Record:
    return Record(
        key=path.stem,
        origin=Origin(dataset="photos", split="all", id=path.stem),
        media=(Media(member="jpg", kind="image", width=WIDTH, height=HEIGHT),),
        annotations=(Caption(text="A photo."),),
        payload={"jpg": path.read_bytes()},
    )


if __name__ == "__main__":
    sys.exit(main())
