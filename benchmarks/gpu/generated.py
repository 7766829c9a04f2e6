"""Photos and captions made of nothing, as large and as hard to decode as real ones."""

from __future__ import annotations

import random
from pathlib import Path

WIDTH, HEIGHT = 640, 480
QUALITY = 90
WORDS = (
    "a",
    "red",
    "small",
    "dog",
    "boat",
    "tree",
    "beside",
    "the",
    "old",
    "house",
    "on",
    "grass",
    "and",
    "two",
    "people",
)


def write_generated_photos(folder: Path, *, count: int, seed: int = 0) -> list[Path]:
    """Write JPEGs of smooth shapes under fine noise, about 100 kB each as COCO's are, and one caption each in Flickr's format."""
    import numpy as np
    from PIL import Image

    rng, words = np.random.default_rng(seed), random.Random(seed)
    photos = folder / "photos"
    photos.mkdir(parents=True)
    paths, lines = [], []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
            (WIDTH, HEIGHT), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(coarse, np.int16) + rng.normal(0, 9, (HEIGHT, WIDTH, 1)).astype(np.int16)
        path = photos / f"{number:09d}.jpg"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)
        paths.append(path)
        lines.append(f"{path.name}#0\t{' '.join(words.choices(WORDS, k=10))}\n")
    (folder / "captions.token").write_text("".join(lines), encoding="utf-8")
    return paths
