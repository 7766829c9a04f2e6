"""Records per second of every step from raw data to scores, each beside the least that this machine could spend on it.

    python -m benchmarks.whole_path [--scale 0.1] [--rounds 5] [--threads 1] [--preset vicha_small] [dotted.key=value …]

The demo's rendered world (`--scale 1`: 2,000 scenes of 128 px, five captions each) goes through the rooms' own functions in one
process on the CPU. Ours and the floor of a step run by turns for `--rounds` rounds, after one uncounted run of each: files are in
the page cache, models are loaded. How to read a step:

    records               one run handles so many
    ours_records_per_s    median, least and largest over the rounds; likewise floor_records_per_s
    ours_to_floor         ours ÷ floor within each round: 1 is as fast as the machine allows, 0.5 takes twice the floor's time
    floor_is              what the floor does; a floor leaves out whatever is not bytes, decoding or matrix products
    webdataset_…          the same shards through the webdataset package, where it is installed: read in file order, without
                          shuffling, checksums or parsing, while ours reads at random in training order with all three

Records are pictures in `raw`, `shards`, `verify`, `concepts` and `evaluate`, and picture-caption pairs in `stream`, `decode` and
`train`, where each caption of a picture is a record of its own. Pairs of `dotted.key=value` change the training preset.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks import floors
from benchmarks.rounds import Side, Step, compare, timed, timed_in_fresh_folder
from benchmarks.world import World, convert, make_world
from concepts.annotate import VOCABULARY_FILE
from concepts.bank import make_bank
from concepts.embed import ClipEmbedder
from concepts.select import select_concepts
from concepts.vocabulary import read_vocabulary
from jobs.config import load_config, read_preset
from jobs.demo.clip import IMAGE_SIZE
from jobs.demo.raw import DemoRawConfig, write_demo_raw
from jobs.verbs.concepts import Config as ConceptsConfig
from jobs.verbs.train import Config as TrainVerbConfig
from shards.address import example_rng
from shards.errors import OstrakaError
from shards.index import tar_path
from shards.reader import Dataset, open_dataset
from shards.records import Record
from shards.stream import Item, RecordStream, Stream, source_of
from shards.verify import verify
from trainers.assembly import VOCABULARY, OpenStreams, build_model, open_concepts, open_streams
from trainers.augment import TrainView
from trainers.config import EvaluateConfig, TrainConfig
from trainers.distributed import Group
from trainers.evaluator import evaluate
from trainers.loader import Loader
from trainers.optim import Horizon, build_optimizer, learning_rate
from trainers.step import TrainStep
from trainers.tasks import load_task
from trainers.trainer import train

RATE = "at the rate of a large fp32 matrix product on as many threads"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the world, measure its steps, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.1, help="share of the demo's 2,000 scenes")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side of a step runs")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, in ours and in the floors")
    parser.add_argument("--preset", default="vicha_small", help="preset of `train`, and of `evaluate`")
    parser.add_argument("--folder", help="where to work, to measure another disk; default: the temporary folder")
    parser.add_argument("overrides", nargs="*", help="dotted.key=value of the training preset")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.threads < 1:
        parser.error("--rounds and --threads are at least 1")
    torch.set_num_threads(options.threads)
    try:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            figures = measure(Path(folder), options)
    except OstrakaError as error:
        parser.exit(1, f"error: {error}\n")
    print(json.dumps(figures, indent=1))
    return 0


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure every step in turn."""
    world = make_world(folder, scale=options.scale, threads=options.threads)
    steps: dict[str, Any] = {}
    for step in _steps(folder, world, options):
        print(f"{step.name} …", file=sys.stderr, flush=True)
        steps[step.name] = compare(step, rounds=options.rounds)
    return {
        "claim": "records per second of each step of the whole path, beside its physical floor",
        "scale": options.scale,
        "rounds": options.rounds,
        "threads": options.threads,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "preset": options.preset,
        "overrides": options.overrides,
        "steps": steps,
    }


def _steps(folder: Path, world: World, options: argparse.Namespace) -> Iterator[Step]:
    """Prepare one step after the other, untimed."""
    dataset = open_dataset(world.datasets["train"])
    config = training_config(folder / "run", world, options)
    yield _raw(folder, world)
    yield _shards(folder, world, dataset)
    yield _verify(dataset)
    with _open_tars(dataset) as descriptors:
        yield _stream(dataset, config, descriptors)
    yield _decode(dataset, config)
    yield _concepts(world, dataset)
    # A single optimiser step leaves the checkpoint and the vocabulary that training and evaluation start from.
    train(config.model_copy(update={"steps": 1, "epochs": None, "tensorboard": False}), lines=False)
    yield _train(config)
    yield _evaluate(folder, world, config, options)


def training_config(output: Path, world: World, options: argparse.Namespace) -> TrainConfig:
    """Fill the training preset with the world's dataset, on the CPU."""
    (stream,) = read_preset(options.preset, verb="train")["streams"]
    overrides = [
        f"streams.{stream}.dataset={world.datasets['train']}",
        f"streams.{stream}.concepts=concepts",
        f"output={output}",
        "device=cpu",
        *options.overrides,
    ]
    return load_config(TrainVerbConfig, options.preset, overrides, verb="train").training()


def _raw(folder: Path, world: World) -> Step:
    root = Path(world.raw.output)
    files = [(str(path.relative_to(root)), path.read_bytes()) for path in sorted(root.rglob("*")) if path.is_file()]
    pictures = sum(name.endswith(".jpg") for name, _ in files)

    def ours(output: Path) -> None:
        write_demo_raw(DemoRawConfig(**{**world.raw.model_dump(), "output": str(output)}))

    return Step(
        name="raw",
        ours=Side(records=pictures, run=timed_in_fresh_folder(folder, ours)),
        floor=Side(
            records=pictures, run=timed_in_fresh_folder(folder, lambda output: floors.write_files(output, files))
        ),
        floor_is="write the same files, without drawing them",
    )


def _shards(folder: Path, world: World, dataset: Dataset) -> Step:
    files = world.splits["train"]
    inputs = [files.annotations, *sorted(files.media.iterdir())]
    output = b"".join(path.read_bytes() for path in _tars(dataset))
    return Step(
        name="shards",
        ours=Side(
            records=len(dataset),
            run=timed_in_fresh_folder(folder, lambda out: convert(world.conversion("train", out / "data"))),
        ),
        floor=Side(
            records=len(dataset),
            run=timed_in_fresh_folder(folder, lambda out: floors.copy_through_hash(out, inputs=inputs, output=output)),
        ),
        floor_is="read and xxh3 the same raw files, xxh3 the same tar bytes, one sequential write of them, one fsync",
    )


def _verify(dataset: Dataset) -> Step:
    tars = _tars(dataset)
    return Step(
        name="verify",
        ours=Side(records=len(dataset), run=timed(lambda: verify(dataset.path))),
        floor=Side(records=len(dataset), run=timed(lambda: floors.hash_files(tars))),
        floor_is="read the same tars once from end to end and xxh3 them once",
    )


def _stream(dataset: Dataset, config: TrainConfig, descriptors: Sequence[int]) -> Step:
    def ours() -> list[Item]:
        return list(_items(dataset, config))

    items = ours()
    wanted = [_members(dataset, item) for item in items]
    spans = [
        (descriptors[item.address.shard], size, offset)
        for item, members in zip(items, wanted, strict=True)
        for size, offset in members
    ]
    return Step(
        name="stream",
        ours=Side(records=len(items), run=timed(ours)),
        floor=Side(records=len(items), run=timed(lambda: floors.read_spans(spans))),
        floor_is="pread and xxh3 the same members in the same order, nothing parsed",
        peers=_webdataset(dataset),
    )


def _decode(dataset: Dataset, config: TrainConfig) -> Step:
    records = [item.record for item in _items(dataset, config)]
    size = int(config.family["image_size"])
    view = TrainView(size, config.augment)
    jpegs = [_jpeg(record) for record in records]

    def ours() -> None:
        for record in records:
            view(record, example_rng(config.seed, 0, record.key))

    return Step(
        name="decode",
        ours=Side(records=len(records), run=timed(ours)),
        floor=Side(records=len(records), run=timed(lambda: floors.decode_and_resize(jpegs, size))),
        floor_is="decode the same JPEGs and resize them whole, in one loop (ours crops first, so it resizes fewer pixels)",
    )


def _concepts(world: World, dataset: Dataset) -> Step:
    embedder = ClipEmbedder(world.embedder)
    column = open_concepts(dataset, "concepts").folder
    bank = make_bank(read_vocabulary(dataset.storage, f"{column}/{VOCABULARY_FILE}"), embedder)
    top_k = int(ConceptsConfig.model_fields["top_k"].default)

    def ours() -> None:
        pictures = [_jpeg(record) for record in dataset.records()]
        select_concepts(embedder.images(pictures), bank, top_k)

    jpegs = [_jpeg(record) for record in dataset.records()]
    return Step(
        name="concepts",
        ours=Side(records=len(dataset), run=timed(ours)),
        floor=_compute_floor(ours, records=len(dataset), jpegs=jpegs, size=IMAGE_SIZE),
        floor_is=f"decode and resize the same JPEGs in one loop, then the embedding's products {RATE}",
    )


def _train(config: TrainConfig) -> Step:
    streams = open_streams(config)
    task = load_task(config.task)
    order = Stream(
        {name: source_of(dataset, task.count) for name, dataset in streams.datasets.items()},
        batch_size=config.batch_size,
        seed=config.seed,
        window=config.window,
        lanes=config.lanes,
    )
    step = _first_step(config, streams, order)
    return Step(
        name="train",
        ours=Side(records=config.batch_size, run=timed(step)),
        floor=_compute_floor(step, records=config.batch_size),
        floor_is=f"the step's products, forward and backward, {RATE}",
    )


def _first_step(config: TrainConfig, streams: OpenStreams, order: Stream) -> Callable[[], object]:
    """Take the run's first optimiser step, again and again, on its batch in memory."""
    task = load_task(config.task)
    model = build_model(config.family, Path(config.output) / VOCABULARY, seed=config.seed)
    horizon = Horizon(steps=config.steps or order.steps_per_epoch, steps_per_epoch=order.steps_per_epoch)
    loader = Loader(
        RecordStream(order, streams.datasets, count=task.count, sidecars=streams.sidecars),
        task=task,
        processor=model.processor,
        view=TrainView(model.processor.view.image_size, config.augment),
        micro_batches=config.micro_batches,
    )
    (loaded,) = loader.steps(0, 1)
    take = TrainStep(
        model.family,
        build_optimizer(model.family, config.optim, lr=learning_rate(config.schedule, 0, horizon)),
        schedule=config.schedule,
        horizon=horizon,
        group=Group(),
        seed=config.seed,
        precision=config.precision,
        clip_norm=config.optim.clip_norm,
    )
    return lambda: take(loaded.micro_batches, loaded.step)


def _evaluate(folder: Path, world: World, config: TrainConfig, options: argparse.Namespace) -> Step:
    dataset = open_dataset(world.datasets["test"])
    evaluation = load_config(
        EvaluateConfig,
        options.preset,
        (
            f"checkpoint={config.output}",
            f"dataset={dataset.path}",
            f"output={folder / 'scores'}",
            "device=cpu",
        ),
        verb="evaluate",
    )

    def ours() -> None:
        evaluate(evaluation)

    jpegs = [_jpeg(record) for record in dataset.records()]
    size = int(config.family["image_size"])
    return Step(
        name="evaluate",
        ours=Side(records=len(dataset), run=timed(ours)),
        floor=_compute_floor(ours, records=len(dataset), jpegs=jpegs, size=size),
        floor_is=f"decode and resize the same JPEGs in one loop, then the products of embedding and re-ranking {RATE}",
    )


def _compute_floor(
    work: Callable[[], object], *, records: int, jpegs: Sequence[bytes] = (), size: int | None = None
) -> Side:
    """Decoding as measured, and the counted products of `work` at the measured rate of large ones."""
    flops = floors.count_flops(work)
    decoding = timed(lambda: floors.decode_and_resize(jpegs, size)) if size is not None else lambda: 0.0
    return Side(records=records, run=lambda: decoding() + flops / floors.matmul_flops_per_s())


def _items(dataset: Dataset, config: TrainConfig) -> Iterator[Item]:
    """Read one epoch in training order."""
    count = load_task(config.task).count
    order = Stream(
        {"data": source_of(dataset, count)},
        batch_size=config.batch_size,
        seed=config.seed,
        window=config.window,
        lanes=config.lanes,
    )
    records = RecordStream(order, {"data": dataset}, count=count)
    for step in range(order.steps_per_epoch):
        yield from (records.fetch(address) for address in order.batch(step))


def _members(dataset: Dataset, item: Item) -> list[tuple[int, int]]:
    """Size and offset of the members that reading an item reads: all but the plain text beside the captions."""
    index = dataset.index(item.address.shard)
    members = index.members(index.keys.index(item.record.key))
    return [(size, offset) for extension, offset, size, _ in members if extension != "txt"]


def _webdataset(dataset: Dataset) -> dict[str, Side]:
    if importlib.util.find_spec("webdataset") is None:
        return {}
    import webdataset

    paths = [str(path) for path in _tars(dataset)]

    def iterate() -> None:
        for _ in webdataset.WebDataset(paths, shardshuffle=False, empty_check=False):
            pass

    return {"webdataset": Side(records=len(dataset), run=timed(iterate))}


def _tars(dataset: Dataset) -> list[Path]:
    return [Path(dataset.path) / tar_path(entry.name) for entry in dataset.manifest]


@contextmanager
def _open_tars(dataset: Dataset) -> Iterator[list[int]]:
    descriptors = [os.open(path, os.O_RDONLY) for path in _tars(dataset)]
    try:
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _jpeg(record: Record) -> bytes:
    return next(record.payload[media.member] for media in record.media if media.kind == "image")


if __name__ == "__main__":
    sys.exit(main())
