"""Photos for measuring: real ones, cut and scaled to one size and written again, as many as are asked for."""

from __future__ import annotations

import argparse
import io
import random
from pathlib import Path
from typing import Literal, get_args

from shards.errors import InputError

Sampling = Literal["original", "4:2:0"]

WIDTH, HEIGHT = 640, 480
QUALITY = 95  # 140 kB a photo with COCO's own sampling of colours, 4:4:4; 110 kB with 4:2:0
SEED = 0
_HALVED = 2  # what Pillow calls 4:2:0


def add_photo_options(parser: argparse.ArgumentParser, *, photos: int) -> None:
    """How many photos a benchmark takes, and of which kind."""
    parser.add_argument("--photos", type=int, default=photos, help="how many photos of 640x480")
    parser.add_argument(
        "--sampling",
        choices=get_args(Sampling),
        default="original",
        help="of colours: as each original has it (COCO's: 4:4:4), or halved both ways, as most cameras and writers do",
    )


def write_photos(originals: Path, folder: Path, *, count: int, sampling: Sampling = "original") -> Path:
    """Write photos of 640x480 and the captions that name them.

    Args:
        originals: any folder; every JPEG below it that is large enough serves, again and again with another cut.
        folder: gets `photos/` and `captions.token`, one caption each, in Flickr's format.
        count: of photos.
        sampling: of colours.

    Returns:
        The folder of the photos.

    Raises:
        InputError: there is no photo to start from.
    """
    from PIL import Image, JpegImagePlugin

    photos = folder / "photos"
    photos.mkdir(parents=True)
    sources = sorted(originals.rglob("*.jpg"))
    if not sources:
        raise InputError(f"{originals} holds no .jpg; set OSTRAKA_DATA to a folder of photos")
    rng = random.Random(SEED)
    lines = []
    written = looked_at = 0
    while written < count:
        if looked_at == len(sources) and not written:
            raise InputError(f"{originals} holds no photo of at least {WIDTH // 2}x{HEIGHT // 2} pixels")
        data = sources[looked_at % len(sources)].read_bytes()
        looked_at += 1
        with Image.open(io.BytesIO(data)) as picture:
            if picture.width < WIDTH // 2 or picture.height < HEIGHT // 2:
                continue
            scale = rng.uniform(0.8, 1.0) * min(picture.width / WIDTH, picture.height / HEIGHT)
            x, y = rng.uniform(0, picture.width - scale * WIDTH), rng.uniform(0, picture.height - scale * HEIGHT)
            box = (x, y, x + scale * WIDTH, y + scale * HEIGHT)
            own = max(JpegImagePlugin.get_sampling(picture), 0)
            cut = picture.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box)
        cut.save(photos / f"{written:09d}.jpg", quality=QUALITY, subsampling=own if sampling == "original" else _HALVED)
        lines.append(f"{written:09d}.jpg#0\tA photo with the number {written} .\n")
        written += 1
    (folder / "captions.token").write_text("".join(lines))
    return photos
