"""Encoded pictures as a model wants them, decoded ahead of it by threads, in order; what cannot be decoded is said, not raised."""

from __future__ import annotations

import io
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from concepts.dual_encoder import Pixels
from shards.structure import outline

if TYPE_CHECKING:
    from PIL import Image

InT = TypeVar("InT")
OutT = TypeVar("OutT")


class Undecodable(str):
    """Why a picture has no pixels."""


def prepare_picture(data: bytes, prepare: Callable[[Image.Image], Pixels]) -> Pixels | Undecodable:
    """Decode a picture as a person sees it, upright and in RGB, and bring it to the model's size.

    Args:
        data: an encoded file (JPEG, PNG, …).
        prepare: the model's own preprocessing, up to whole numbers.
    """
    from PIL import Image, ImageOps

    try:
        upright = _decode_plain_jpeg(data)
        if upright is not None:
            return prepare(upright)
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as picture:
            warnings.simplefilter("ignore")  # of odd metadata and near-bombs: what matters is said below
            # The record's width and height are those after the EXIF orientation too.
            return prepare(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as problem:
        return Undecodable(f"the picture cannot be decoded ({' '.join(str(problem).split())[:120]})")


def _decode_plain_jpeg(data: bytes) -> Image.Image | None:
    """Decode a whole, upright JPEG of three colours to Pillow's very pixels, a third faster; None where Pillow has to look."""
    import simplejpeg
    from PIL import Image

    found = outline(data)
    limit = Image.MAX_IMAGE_PIXELS or 0
    if found is None or found.extension != "jpg" or found.orientation != 1 or found.width * found.height > limit:
        return None
    try:
        if simplejpeg.decode_jpeg_header(data)[2] != "YCbCr":
            return None
        return Image.fromarray(simplejpeg.decode_jpeg(data, colorspace="RGB"))
    except ValueError:  # an odd file: Pillow reads some of them, and says what is wrong with the others
        return None


def ahead(
    work: Callable[[InT], OutT], items: Iterable[InT], *, pool: ThreadPoolExecutor | None, window: int
) -> Iterator[OutT]:
    """Map in order, with up to `window` results made before they are asked for; without a pool, each when it is asked for."""
    if pool is None:
        yield from map(work, items)
        return
    source = iter(items)
    waiting: deque[Future[OutT]] = deque(pool.submit(work, item) for item in islice(source, window))
    try:
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(source, 1))
            yield result
    finally:
        for future in waiting:
            future.cancel()
