"""One way of reading a dataset of photos, in a process of its own that reads it once whenever it is told to.

    python -m benchmarks.readers SIDE FOLDER

FOLDER holds what `photo_dataset` wrote. Sides other than ours import nothing of this project but `benchmarks`, so that they run
in the environment of their tool.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.turns import Work, serve

SIZE = 256
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of torchvision's stock crop
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 64
BLOCK = 1 << 20
HOWS = ("handed_out", "read", "bytes")


def tars(folder: Path) -> list[Path]:
    """The shards of the dataset."""
    return sorted((folder / "data" / "shards").glob("*.tar"))


def floor_read(folder: Path) -> Work:
    """Every byte of the tars by `read()`, a megabyte at a time, into the same memory: nothing cut out, nothing checked."""
    paths = tars(folder)
    records = _records(folder)

    def work() -> int:
        for path in paths:
            with path.open("rb", buffering=0) as file:
                while file.read(BLOCK):
                    pass
        return records

    return work


def taken(picture: bytes | memoryview, how: str) -> int:
    """Do with a picture what one of `HOWS` says; the same for every reader."""
    match how:
        case "read":
            return int(np.frombuffer(picture, dtype=np.uint8).max())
        case "bytes":
            return len(bytes(picture))
    return 0


def ours_raw(folder: Path, how: str) -> Work:
    """Members of every record, each checked against its checksum."""
    from shards.reader import open_dataset

    dataset = open_dataset(folder / "data")

    def work() -> int:
        records = 0
        for shard in range(len(dataset.manifest)):
            for _, members in dataset.raw(shard):
                taken(members["jpg"], how)
                records += 1
        return records

    return work


def ours_stream(folder: Path, how: str) -> Work:
    """Records in training order, shuffled over all shards, checked, their headers parsed."""
    stream, steps = _stream(folder)

    def work() -> int:
        records = 0
        for step in range(steps):
            for address in stream.stream.batch(step):
                taken(stream.fetch(address).record.payload["jpg"], how)
                records += 1
        return records

    return work


def webdataset_raw(folder: Path, how: str) -> Work:
    """webdataset's members in file order."""
    from webdataset import WebDataset

    paths = [str(path) for path in tars(folder)]

    def work() -> int:
        records = 0
        for sample in WebDataset(paths, shardshuffle=False, empty_check=False):
            taken(sample["jpg"], how)
            records += 1
        return records

    return work


def litdata_raw(folder: Path, how: str) -> Work:
    """LitData's records, in its order without shuffling, from chunks of its own that hold the same members."""
    from litdata import StreamingDataset
    from litdata.streaming.writer import BinaryWriter
    from webdataset import WebDataset

    output = folder / "litdata"
    shutil.rmtree(output, ignore_errors=True)
    writer = BinaryWriter(str(output), chunk_bytes=1 << 26)
    paths = [str(path) for path in tars(folder)]
    for number, sample in enumerate(WebDataset(paths, shardshuffle=False, empty_check=False)):
        kept = {name: sample[name] for name in ("json", "jpg", "txt") if name in sample}
        writer.add_item(number, {"key": sample["__key__"], **kept})
    writer.done()
    writer.merge()

    def work() -> int:
        records = 0
        for sample in StreamingDataset(str(output), shuffle=False):
            taken(sample["jpg"], how)
            records += 1
        return records

    return work


def ours_train(folder: Path, interpolation: str) -> Work:
    """Our stream to crops, as the training loader makes them: uint8, because floats and normalisation are the device's work."""
    import torch

    from shards.address import example_rng
    from shards.stream import Item
    from trainers.augment import AugmentConfig, TrainView

    stream, steps = _stream(folder)
    config = AugmentConfig.model_validate({"scale": SCALE, "ratio": RATIO, "interpolation": interpolation})
    view = TrainView(SIZE, config)

    def shown(item: Item) -> Any:
        return view(item.record, example_rng(0, item.address.epoch, item.name))

    def work() -> int:
        records = 0
        for step in range(steps):
            pictures = torch.stack([stream.make(address, shown) for address in stream.stream.batch(step)])
            records += len(pictures)
        return records

    return work


def codec(folder: Path, interpolation: str) -> Work:
    """The codec alone: JPEGs in memory to whole pictures, each cut and resized, by torchvision in one loop."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    from trainers.augment import draw_crop

    jpegs = [path.read_bytes() for path in sorted((folder / "photos").glob("*.jpg"))]
    rng = np.random.default_rng(0)

    def work() -> int:
        for data in jpegs:
            pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
            crop = draw_crop(pixels.shape[1], pixels.shape[2], rng, scale=SCALE, ratio=RATIO)
            cut = pixels[None, :, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
            torch.nn.functional.interpolate(cut, size=(SIZE, SIZE), mode=interpolation, antialias=True)
        return len(jpegs)

    return work


def webdataset_train(folder: Path, interpolation: str) -> Work:
    """webdataset with the stock recipe: Pillow, torchvision's v1 crop, flip, ToTensor and Normalize."""
    import torch
    from PIL import Image
    from torchvision import transforms
    from webdataset import WebDataset

    recipe = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                SIZE, scale=SCALE, ratio=RATIO, interpolation=transforms.InterpolationMode(interpolation)
            ),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    paths = [str(path) for path in tars(folder)]

    def decoded(sample: dict[str, bytes]) -> Any:
        return recipe(Image.open(io.BytesIO(sample["jpg"])).convert("RGB"))

    def work() -> int:
        records = 0
        pictures = WebDataset(paths, shardshuffle=len(paths), empty_check=False).shuffle(1000).map(decoded)
        for batch in pictures.batched(BATCH, collation_fn=torch.stack):
            records += len(batch)
        return records

    return work


def _records(folder: Path) -> int:
    return sum(1 for _ in (folder / "photos").iterdir())


def _stream(folder: Path) -> tuple[Any, int]:
    from shards.reader import open_dataset
    from shards.stream import RecordStream, Stream, source_of

    dataset = open_dataset(folder / "data")
    order = Stream({"photos": source_of(dataset, "records")}, batch_size=BATCH, seed=0)
    return RecordStream(order, {"photos": dataset}, count="records"), order.steps_per_epoch


SIDES: dict[str, Callable[..., Work]] = {
    "floor_read": floor_read,
    "ours_raw": ours_raw,
    "ours_stream": ours_stream,
    "webdataset_raw": webdataset_raw,
    "litdata_raw": litdata_raw,
    "ours_train": ours_train,
    "codec": codec,
    "webdataset_train": webdataset_train,
}

if __name__ == "__main__":
    side, place, *rest = sys.argv[1:]
    serve(SIDES[side](Path(place), *rest))
