"""The demo's raw dataset, in the layout in which COCO Captions is published: a folder of pictures and a JSON file per split.

    OUTPUT/train2017/000000000001.jpg …   OUTPUT/annotations/captions_train2017.json …

Some raw items of the train split are broken on purpose, as in every real download: their rejects are part of the demo.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from jobs.demo.captions import describe
from jobs.demo.drawing import PICTURE_SIDE, render_jpeg
from jobs.demo.scenes import Scene, draw_scene
from shards.config import Config, canonical_json, digest
from shards.errors import DatasetError, InputError
from shards.storage import Storage
from shards.stores import open_storage

Split = Literal["train", "val", "test"]

# In this order, so that the test scenes of a small demo are the first ones of the full demo's.
SPLIT_SIZES: Mapping[Split, int] = {"test": 400, "val": 100, "train": 1500}
SMALLEST_SPLIT = 12
FIRST_ID: Mapping[Split, int] = {"train": 1, "val": 500_001, "test": 700_001}
FIRST_BROKEN_ID = 900_001
FAULTS = ("missing", "truncated", "page", "empty_file", "blank_caption", "silent", "twice")
CAPTIONS_PER_SCENE = 5
LICENCE = {
    "id": 1,
    "name": "CC0 1.0 (rendered, no rights reserved)",
    "url": "https://creativecommons.org/publicdomain/zero/1.0/",
}


class DemoRawConfig(Config):
    """What to write and where."""

    output: str
    """Folder of the raw dataset."""
    scale: float = Field(1.0, gt=0, le=50)
    """Share of the full demo's 2,000 scenes."""
    seed: int = Field(0, ge=0)
    """Names the world; another seed gives other scenes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSplit:
    """Where one split lies."""

    name: Split
    annotations: Path
    media: Path
    scenes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RawItem:
    """One picture file to write (None: the file is missing on purpose) and what the annotation file says of it."""

    id: int
    jpeg: bytes | None
    captions: tuple[str, ...]
    listed: int = 1  # how often the annotation file lists the picture

    @property
    def file_name(self) -> str:
        return f"{self.id:012d}.jpg"


def write_demo_raw(
    config: DemoRawConfig, *, on_item: Callable[[Split], None] | None = None
) -> Mapping[Split, RawSplit]:
    """Write the raw dataset, or go on where an earlier run stopped.

    Args:
        config: what to write and where.
        on_item: called after each raw item.

    Returns:
        The three splits, train first.

    Raises:
        DatasetError: the folder holds a demo of another seed, scale or version.
        InputError: the folder cannot be written.
    """
    root = Path(config.output)
    try:
        root.mkdir(parents=True, exist_ok=True)
        storage = open_storage(root)
        _claim_folder(storage, config)
        scenes = draw_world(config)
        for split, chosen in scenes.items():
            _write_split(storage, split, chosen, config, on_item)
    except OSError as error:
        raise InputError(
            f"{root}: the demo's raw pictures cannot be written here ({error}); choose another folder with output=…"
        ) from error
    return raw_splits(config)


def raw_splits(config: DemoRawConfig) -> Mapping[Split, RawSplit]:
    """Name the files of each split, whether or not they are written yet."""
    root = Path(config.output)
    order: tuple[Split, ...] = ("train", "val", "test")
    return {
        split: RawSplit(
            name=split,
            annotations=root / "annotations" / f"captions_{split}2017.json",
            media=root / f"{split}2017",
            scenes=split_size(split, config.scale),
        )
        for split in order
    }


def is_written(config: DemoRawConfig) -> bool:
    """Whether the raw dataset of this very config is complete: annotation files are written after their pictures."""
    mark = Path(config.output) / "demo.json"
    return (
        mark.is_file()
        and mark.read_bytes() == _mark(config)
        and all(split.annotations.is_file() for split in raw_splits(config).values())
    )


def split_size(split: Split, scale: float) -> int:
    """Number of sound scenes in a split."""
    return max(SMALLEST_SPLIT, round(SPLIT_SIZES[split] * scale))


def scene_id(split: Split, number: int) -> int:
    """The picture id of a split's scene, as in COCO's files."""
    return FIRST_ID[split] + number


def scene_captions(config: DemoRawConfig, split: Split, number: int, scene: Scene) -> tuple[str, ...]:
    """What the caption file says of a split's scene."""
    return _texts(scene, config, scene_id(split, number))


def draw_world(config: DemoRawConfig) -> Mapping[Split, tuple[Scene, ...]]:
    """Draw all scenes. No two are the same, so nothing of the test split was ever seen in training."""
    known: set[tuple[object, ...]] = set()
    world: dict[Split, tuple[Scene, ...]] = {}
    for place, split in enumerate(SPLIT_SIZES):
        scenes: list[Scene] = []
        for number in range(split_size(split, config.scale)):
            scene = _new_scene(np.random.default_rng([config.seed, place, number]), known)
            known.add(scene.facts)
            scenes.append(scene)
        world[split] = tuple(scenes)
    return world


def _new_scene(rng: np.random.Generator, known: set[tuple[object, ...]]) -> Scene:
    while (scene := draw_scene(rng)).facts in known:
        pass
    return scene


def _write_split(
    storage: Storage,
    split: Split,
    scenes: tuple[Scene, ...],
    config: DemoRawConfig,
    on_item: Callable[[Split], None] | None,
) -> None:
    annotations = f"annotations/captions_{split}2017.json"
    if storage.exists(annotations):
        return
    folder = Path(config.output, f"{split}2017")
    folder.mkdir(exist_ok=True)
    items: list[RawItem] = []
    for item in _items(split, scenes, config):
        if item.jpeg is not None:
            write_once(folder / item.file_name, item.jpeg)
        items.append(item)
        if on_item is not None:
            on_item(split)
    storage.replace(annotations, json.dumps(_coco(split, items), ensure_ascii=False).encode())


def write_once(path: Path, data: bytes) -> None:
    """Write a picture unless it is there; not synced to the disk one by one, because the annotation file comes last."""
    if not path.exists():
        part = path.with_suffix(".part")
        part.write_bytes(data)
        part.replace(path)


def _items(split: Split, scenes: tuple[Scene, ...], config: DemoRawConfig) -> Iterator[RawItem]:
    for number, scene in enumerate(scenes):
        item_id = scene_id(split, number)
        yield RawItem(id=item_id, jpeg=render_jpeg(scene), captions=scene_captions(config, split, number, scene))
    if split == "train":
        yield from broken_items(config)


def broken_items(config: DemoRawConfig) -> Iterator[RawItem]:
    """Raw items with each a fault that real downloads have; ids from `FIRST_BROKEN_ID`, so that no sound scene is lost."""
    page = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n"
    for number, fault in enumerate(FAULTS):
        item_id = FIRST_BROKEN_ID + number
        scene = draw_scene(np.random.default_rng([config.seed, 9, number]))
        jpeg = render_jpeg(scene)
        faulty: dict[str, bytes | None] = {
            "missing": None,
            "truncated": jpeg[: len(jpeg) * 2 // 5],
            "page": page,
            "empty_file": b"",
        }
        texts = _texts(scene, config, item_id)
        yield RawItem(
            id=item_id,
            jpeg=faulty.get(fault, jpeg),
            captions={"blank_caption": (*texts[:-1], "   "), "silent": ()}.get(fault, texts),
            listed=2 if fault == "twice" else 1,
        )


def _texts(scene: Scene, config: DemoRawConfig, item_id: int) -> tuple[str, ...]:
    rng = np.random.default_rng([config.seed, 7, item_id])
    return tuple(text for _, text in describe(scene, rng, count=CAPTIONS_PER_SCENE))


def _coco(split: Split, items: list[RawItem]) -> dict[str, Any]:
    images = [
        {
            "license": LICENCE["id"],
            "file_name": item.file_name,
            "height": PICTURE_SIDE,
            "width": PICTURE_SIDE,
            "id": item.id,
        }
        for item in items
        for _ in range(item.listed)
    ]
    captions = [(item.id, text) for item in items for text in item.captions]
    return {
        "info": {"description": f"Ostraka demo scenes, {split} split", "version": "1.0", "contributor": "Ostraka"},
        "licenses": [LICENCE],
        "images": images,
        "annotations": [
            {"image_id": image_id, "id": FIRST_ID[split] * 10 + number, "caption": text}
            for number, (image_id, text) in enumerate(captions)
        ],
    }


def _mark(config: DemoRawConfig) -> bytes:
    world = {"schema": 1, "scale": config.scale, "seed": config.seed}
    return canonical_json({**world, "digest": digest(world)})


def open_task_folder(config: DemoRawConfig) -> Storage:
    """Open the folder of a task's raw files, and make it.

    Raises:
        DatasetError: it holds those of another seed, scale or version.
        InputError: it cannot be written.
    """
    try:
        Path(config.output).mkdir(parents=True, exist_ok=True)
        storage = open_storage(config.output)
        _claim_folder(storage, config)
    except OSError as error:
        raise InputError(
            f"{config.output}: the demo's raw files cannot be written here ({error}); choose another folder with output=…"
        ) from error
    return storage


def _claim_folder(storage: Storage, config: DemoRawConfig) -> None:
    mark = _mark(config)
    if not storage.create("demo.json", mark) and storage.read("demo.json") != mark:
        raise DatasetError(
            f"{config.output}: holds demo pictures of another seed or scale; "
            "remove the folder or choose another one with output=…"
        )
