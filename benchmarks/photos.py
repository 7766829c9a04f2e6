"""Photos for measuring: real ones, cut and scaled to one size and written again, as many as are asked for."""

from __future__ import annotations

import io
import random
from pathlib import Path

from shards.errors import InputError

WIDTH, HEIGHT = 640, 480
QUALITY = 95  # with the colour sampling of the original: about 100 kB a photo, as COCO's have
SEED = 0


def write_photos(originals: Path, folder: Path, *, count: int) -> Path:
    """Write photos of 640x480 and the captions that name them.

    Args:
        originals: any folder; every JPEG below it that is large enough serves, again and again with another cut.
        folder: gets `photos/` and `captions.token`, one caption each, in Flickr's format.
        count: of photos.

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
            sampling = max(JpegImagePlugin.get_sampling(picture), 0)
            cut = picture.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box)
        cut.save(photos / f"{written:09d}.jpg", quality=QUALITY, subsampling=sampling)
        lines.append(f"{written:09d}.jpg#0\tA photo with the number {written} .\n")
        written += 1
    (folder / "captions.token").write_text("".join(lines))
    return photos
