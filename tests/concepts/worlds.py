"""Captioned pictures and a CLIP with random weights, both made in code."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shards.manifest import merge
from shards.reader import Dataset, open_dataset
from shards.records import Caption, Media, Origin, Record
from shards.stores import open_storage
from shards.writer import ShardWriter

COLOURS = ("red", "green", "blue", "white")
THINGS = ("dog", "house", "boat", "tree", "ball")


def _jpeg(number: int) -> bytes:
    image = Image.new("RGB", (40, 30), COLOURS[number % len(COLOURS)])
    image.paste((number * 11 % 255, number * 7 % 255, 40), (5, 5, 5 + number % 20, 25))
    data = io.BytesIO()
    image.save(data, "JPEG")
    return data.getvalue()


def captioned(number: int, *, name: str = "made") -> Record:
    """Record of a number: three captions, of which two name its thing."""
    thing = THINGS[number % len(THINGS)]
    texts = (f"A small {thing} on the grass.", f"Two {thing}s near the water.", f"A {COLOURS[number % 4]} sky.")
    return Record(
        key=f"{name}-{number:03d}",
        origin=Origin(dataset=name, split="train", id=str(number)),
        media=(Media(member="jpg", kind="image", width=40, height=30),),
        annotations=tuple(Caption(id=f"{number}-{place}", text=text) for place, text in enumerate(texts)),
        payload={"jpg": _jpeg(number)},
    )


@pytest.fixture
def captioned_dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """Write a dataset of `shards` shards with `records` records each."""

    def write(name: str = "made", *, shards: int = 3, records: int = 7, first: int = 0) -> Dataset:
        storage = open_storage(tmp_path / name)
        for unit in range(shards):
            with ShardWriter(
                storage, dataset=name, split="train", unit=f"unit{unit}", unit_index=unit, config_digest="c0ffee"
            ) as writer:
                for row in range(records):
                    writer.add(captioned(first + unit * records + row, name=name))
                writer.commit(raw_items=records, raw_annotations=3 * records)
        units = [f"unit{unit}" for unit in range(shards)]
        merge(storage, name=name, split="train", config={}, config_digest="c0ffee", expected_units=units)
        return open_dataset(tmp_path / name)

    return write


@pytest.fixture
def tiny_clip(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Save a CLIP of two layers with random weights; returns the embedder keys that load it."""

    def save(name: str = "tiny-clip", *, seed: int = 0, width: int = 16) -> dict[str, Any]:
        import open_clip
        import torch
        from safetensors.torch import save_file

        config = {
            "embed_dim": width,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
            "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
        }
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(config))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = open_clip.CLIP(**config)
        weights = tmp_path / f"{name}-{seed}.safetensors"
        save_file(model.state_dict(), weights)
        return {"model": str(path), "pretrained": str(weights)}

    return save
