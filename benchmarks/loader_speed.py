"""The loader of the `vicha` preset at 256 px, with concepts and RandAugment, beside the usual recipe; and two workers beside one.

    python -m benchmarks.loader_speed [--photos 320] [--sampling 4:2:0] [--rounds 5] [--peers VENV/bin/python] [--folder /dev/shm]
    python -m benchmarks.loader_speed --workers …     two loader workers beside one

`ours` is the training loader itself: order, checksums, decoding, crop, flip, RandAugment, tokens, hidden words and patches;
`ours_without_randaugment` leaves those operations to the device (`augment.augment_on=device`). `floor` is the codec alone. `recipe`
is `benchmarks.reference_recipe`, which needs OpenCV and transformers, as published; `recipe_quick` the same with what is quicker
today in the place of tables by numpy and of the tokenizer in plain Python.

Two workers are compared with one by the wall, which says something on an otherwise idle machine only, and by what a record costs
(`cpu_s`): twice that ratio is the most that two processors can gain, whoever else is at work. The workers' start is counted in
both, so give it `--photos 2000`, an epoch of some length.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.converters import ours as conversion
from benchmarks.photos import Sampling, write_photos
from benchmarks.read_speed import add_options, reader
from benchmarks.turns import Clock, Work, compare_in_turns, serve
from benchmarks.world import write_random_clip

PRESET = "vicha_1m"
VOCABULARY = 4000


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the dataset with its concepts, measure, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, photos=320, rounds=5)
    parser.add_argument("--workers", action="store_true", help="two loader workers beside one")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = captioned_world(Path(place), photos=options.photos, sampling=options.sampling)
        figures = _crews(folder, options) if options.workers else _recipes(folder, options)
    print(json.dumps(figures, indent=1))
    return 0


def _crews(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Two workers beside one, by both clocks."""
    clocks: tuple[Clock, ...] = ("wall_s", "cpu_s")
    return {
        clock: compare_in_turns(
            {"ours": loader(folder, workers=2), "floor": loader(folder, workers=1)},
            rounds=options.rounds,
            clock=clock,
            claim=f"two workers of the loader of {PRESET} at 256 px",
            floor="floor",
            floor_is="the same loader with one worker",
        )
        for clock in clocks
    }


def _recipes(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The loader beside the recipe and the codec."""
    return compare_in_turns(
        {
            "ours": loader(folder),
            "floor": reader("codec", folder, "bicubic"),
            "recipe": [options.peers, "-m", "benchmarks.reference_recipe", str(folder)],
            "recipe_quick": [options.peers, "-m", "benchmarks.reference_recipe", str(folder), "quick"],
            "ours_without_randaugment": loader(folder, augment_on="device"),
        },
        rounds=options.rounds,
        clock=options.clock,
        claim=f"the loader of {PRESET} at 256 px with concepts and RandAugment",
        floor="floor",
        floor_is="the codec alone: JPEGs in memory decoded whole, cut and resized in one loop",
    )


def loader(folder: Path, *, workers: int = 0, augment_on: str = "worker") -> list[str]:
    """The command line of our side."""
    return [sys.executable, "-m", "benchmarks.loader_speed", "serve", str(folder), str(workers), augment_on]


def captioned_world(folder: Path, *, photos: int, sampling: Sampling = "original") -> Path:
    """Write photos with real captions, the dataset `data` with a concepts column, a vocabulary, and what the recipe reads."""
    from concepts.embed import EmbedderConfig
    from jobs.verbs.concepts import Config as ConceptsConfig
    from jobs.verbs.concepts import annotate
    from model.tokenizer import train_wordpiece
    from shards.reader import open_dataset
    from shards.records import Caption
    from trainers.assembly import open_concepts

    originals = Path(os.environ.get("OSTRAKA_DATA", "../shared/data"))
    write_photos(originals, folder, count=photos, sampling=sampling)
    texts = _captions(originals)
    rng = random.Random(0)
    lines = [f"{number:09d}.jpg#0\t{rng.choice(texts)}\n" for number in range(photos)]
    (folder / "captions.token").write_text("".join(lines))
    conversion(folder, folder / "data", ())()
    model, weights = write_random_clip(folder / "clip")
    embedder = EmbedderConfig(model=str(model), pretrained=str(weights), threads=1, device="cpu")
    annotate(
        ConceptsConfig.model_validate(
            {
                "dataset": [str(folder / "data")],
                "embedder": embedder.model_dump(),
                "vocabulary": {"datasets": [str(folder / "data")]},
                "phrases": {"tagger": "rules"},
            }
        )
    )
    train_wordpiece(texts, vocab_size=VOCABULARY, path=folder / "vocab.txt")
    dataset = open_dataset(folder / "data")
    column = open_concepts(dataset, "concepts")
    rows = []
    for shard in range(len(dataset.manifest)):
        for record in dataset.records(shard, payload=False):
            (caption,) = record.annotations
            assert isinstance(caption, Caption)
            rows.append((f"photos/{record.origin.file}", caption.text, list(column.row(shard, record.key)["phrases"])))
    (folder / "recipe.json").write_text(json.dumps(rows))
    return folder


def ours(folder: Path, workers: int, augment_on: str) -> Work:
    """The training loader, as the preset sets it up."""
    import torch

    from jobs.config import load_config, read_preset
    from jobs.verbs.train import Config
    from shards.stream import RecordStream
    from trainers.assembly import build_model, open_streams
    from trainers.augment import TrainView
    from trainers.loader import Loader
    from trainers.mixing import lay_order
    from trainers.tasks import load_task

    torch.set_num_threads(1)
    first, *others = read_preset(PRESET, verb="train")["streams"]
    streams = {first: {"dataset": str(folder / "data"), "concepts": "concepts"}}
    keys = [f"streams.{name}.dataset={folder / 'data'}" for name in (first, *others)]
    keys += [f"output={folder / 'run'}", "device=cpu", "batch_size=64", f"augment.augment_on={augment_on}"]
    config = load_config(Config, PRESET, keys, verb="train")
    training = type(config).model_validate(config.model_dump() | {"streams": streams}).training()
    data = open_streams(training)
    task = load_task(training.task)
    order = lay_order(training, data, task)
    processor = build_model(training.family, folder / "vocab.txt", seed=0).processor
    loading = Loader(
        RecordStream(order, data.datasets, count=task.count, sidecars=data.sidecars),
        task=task,
        processor=processor,
        view=TrainView(processor.view.image_size, training.augment),
        workers=workers,
    )
    return lambda: sum(len(step.names) for step in loading.steps(0, order.steps_per_epoch))


def _captions(originals: Path) -> list[str]:
    """Real captions, from every file in Flickr's format below a folder."""
    return [
        line.split("\t", 1)[1].strip()
        for path in sorted(originals.rglob("*.token.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if "\t" in line
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(ours(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
    else:
        sys.exit(main())
