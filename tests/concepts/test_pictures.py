from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from concepts.pictures import Undecodable, ahead, prepare_picture


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (37, 23), **options: object) -> bytes:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        encoded("JPEG"),
        encoded("JPEG", subsampling=0, quality=98),
        encoded("JPEG", progressive=True),
        encoded("JPEG", "L"),
        encoded("JPEG", "CMYK"),
        encoded("PNG", "P"),
        encoded("WEBP"),
    ],
)
def test_pixels_are_those_of_pillow_bit_for_bit(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as picture:
        expected = np.asarray(picture.convert("RGB"))
    found = prepare_picture(data, np.asarray)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("data", [b"", b"no picture", encoded("JPEG")[:-200], encoded("PNG")[:80]])
def test_what_cannot_be_decoded_is_said_and_not_raised(data: bytes) -> None:
    found = prepare_picture(data, np.asarray)
    assert isinstance(found, Undecodable)
    assert "cannot be decoded" in found


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_results_come_in_order_and_only_so_many_ahead(threads: int) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    def slow(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return number * number

    with ThreadPoolExecutor(max(threads, 1)) as pool:
        results = ahead(slow, numbers(), pool=pool if threads else None, window=6)
        for number in range(50):
            assert next(results) == number * number
            assert len(taken) <= number + 7


def test_an_error_of_the_work_is_raised_where_its_result_is_due() -> None:
    before = threading.active_count()
    with ThreadPoolExecutor(2) as pool:
        results = ahead(lambda number: 1 // number, [1, 0, 2], pool=pool, window=3)
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
    assert threading.active_count() <= before
