"""A small world to train on, made in code: coloured shapes with captions and concepts, as a real dataset on disk."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

from shards.manifest import merge
from shards.reader import Dataset, open_dataset
from shards.records import Caption, Media, Origin, Record
from shards.sidecar import write_sidecar
from shards.stores import open_storage
from shards.writer import ShardWriter

COLOURS = ("red", "green", "blue", "yellow", "white", "purple")
SHAPES = ("square", "disc", "bar")
SIDE = 32

TINY_FAMILY: dict[str, Any] = {
    "kind": "vicha",
    "image_size": 32,
    "patch_size": 8,
    "vision": {"width": 32, "depth": 3, "heads": 2},
    "text": {"width": 32, "layers": 3, "fusion_layer": 2, "heads": 2, "mlp_width": 64, "max_positions": 32},
    "projection": 16,
    "contrast": {"queue_size": 24, "momentum": 0.9},
    "hierarchy": {"layers": 1},
    "masked_image": {"decoder_width": 16, "decoder_layers": 1, "decoder_heads": 2},
    "concepts": {"layers": 1, "max_tokens": 8, "draw": 2},
}


def _picture(colour: str, shape: str) -> bytes:
    image = Image.new("RGB", (SIDE, SIDE), "black")
    draw = ImageDraw.Draw(image)
    box = (6, 6, 26, 26)
    if shape == "square":
        draw.rectangle(box, fill=colour)
    elif shape == "disc":
        draw.ellipse(box, fill=colour)
    else:
        draw.rectangle((2, 12, 30, 20), fill=colour)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90)
    return data.getvalue()


def _record(number: int, colour: str, shape: str, captions: int) -> Record:
    texts = (f"a {colour} {shape}", f"one {shape} that is {colour}", f"{colour} {shape} on black")
    return Record(
        key=f"world-{number:03d}",
        origin=Origin(dataset="world", split="train", id=str(number)),
        media=(Media(member="jpg", kind="image", width=SIDE, height=SIDE),),
        annotations=tuple(Caption(id=f"{number}-{place}", text=texts[place]) for place in range(captions)),
        payload={"jpg": _picture(colour, shape)},
    )


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., Dataset]:
    """Write a dataset of distinct pictures in shards of nearly equal size, with a concepts sidecar."""

    def write(name: str = "world", *, pictures: int = 18, captions: int = 2, parts: int = 2) -> Dataset:
        storage = open_storage(tmp_path / name)
        kinds = list(itertools.islice(itertools.product(COLOURS, SHAPES), pictures))
        cuts = [pictures * part // parts for part in range(parts + 1)]
        shards: list[list[tuple[str, str]]] = [kinds[start:stop] for start, stop in itertools.pairwise(cuts)]
        number = 0
        for unit, chosen in enumerate(shards):
            with ShardWriter(
                storage, dataset="world", split="train", unit=f"unit{unit}", unit_index=unit, config_digest="c0ffee"
            ) as writer:
                for colour, shape in chosen:
                    writer.add(_record(number, colour, shape, captions))
                    number += 1
                writer.commit(raw_items=len(chosen), raw_annotations=len(chosen) * captions)
        units = [f"unit{unit}" for unit in range(len(shards))]
        merge(storage, name="world", split="train", config={}, config_digest="c0ffee", expected_units=units)
        dataset = open_dataset(tmp_path / name)
        for unit, (entry, chosen) in enumerate(zip(dataset.manifest, shards, strict=True)):
            phrases = [[shape, colour] for colour, shape in chosen]
            write_sidecar(
                storage,
                column="concepts",
                digest8="0badcafe",
                shard=entry.name,
                keys=dataset.index(unit).keys,
                values=pa.table({"phrases": phrases, "scores": [[0.9, 0.8]] * len(chosen)}),
                card={},
            )
        return dataset

    return write


@pytest.fixture
def tiny_training(tmp_path: Path, world: Callable[..., Dataset]) -> Callable[..., dict[str, Any]]:
    """The plain values of a TrainConfig that trains in a second; keywords replace top-level keys."""

    def values(**changes: Any) -> dict[str, Any]:
        dataset = tmp_path / "world"
        if not dataset.exists():
            world()
        return {
            "output": str(tmp_path / "run"),
            "streams": {"world": {"dataset": str(dataset), "concepts": "concepts"}},
            "family": TINY_FAMILY,
            "tokenizer": {"train_size": 200},
            "batch_size": 8,
            "steps": 6,
            "seed": 3,
            "schedule": {"kind": "cosine", "lr": 1e-3, "warmup_steps": 2},
            "checkpoint_every": 2,
            "log_every": 3,
            "tensorboard": False,
            **changes,
        }

    return values
