"""Repeats and leaks against the plain quadratic rule, on random hashes and on real re-encodings of drawn pictures."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.duplicates import Fingerprint, fingerprint, leaks, repeats
from shards.records import Caption, Media, Origin, Record


def prints(*hashes: int | None) -> list[Fingerprint]:
    return [
        Fingerprint(content=place if value is not None else 7, perceptual=value) for place, value in enumerate(hashes)
    ]


def near(left: Fingerprint, right: Fingerprint, distance: int) -> bool:
    if left.perceptual is None or right.perceptual is None:
        return left.perceptual is right.perceptual and left.content == right.content
    return (left.perceptual ^ right.perceptual).bit_count() <= distance


def quadratic(items: list[Fingerprint], distance: int) -> dict[int, int]:
    dropped: dict[int, int] = {}
    for place, item in enumerate(items):
        earlier = [e for e in range(place) if e not in dropped and near(items[e], item, distance)]
        if earlier:
            dropped[place] = earlier[0]
    return dropped


@st.composite
def neighbourhoods(draw: st.DrawFn) -> list[Fingerprint]:
    """Hashes of a few centres with a few bits flipped, so that near ones are common; some items have no hash."""
    generator = random.Random(draw(st.integers(0, 2**32)))
    centres = [generator.getrandbits(64) for _ in range(draw(st.integers(1, 4)))]
    items = []
    for _ in range(draw(st.integers(0, 40))):
        value = generator.choice(centres)
        for _ in range(generator.randrange(6)):
            value ^= 1 << generator.randrange(64)
        without = generator.random() < 0.1
        items.append(Fingerprint(content=generator.randrange(4), perceptual=None if without else value))
    return items


@given(neighbourhoods(), st.integers(0, 6))
def test_repeats_are_those_of_the_plain_rule(items: list[Fingerprint], distance: int) -> None:
    assert repeats(items, distance=distance).keys() == quadratic(items, distance).keys()
    kept = repeats(items, distance=distance)
    assert not kept.keys() & set(kept.values())


@given(neighbourhoods(), neighbourhoods(), st.integers(0, 6))
def test_leaks_are_those_of_the_plain_rule(items: list[Fingerprint], against: list[Fingerprint], distance: int) -> None:
    expected = {place for place, item in enumerate(items) if any(near(other, item, distance) for other in against)}
    assert leaks(items, against=against, distance=distance).keys() == expected


def test_a_chain_of_gradual_change_is_not_swallowed_whole() -> None:
    assert repeats(prints(0b0, 0b1, 0b11, 0b111), distance=1) == {1: 0, 3: 2}


def test_items_without_pictures_are_compared_by_their_bytes() -> None:
    assert repeats(prints(None, None, 5), distance=4) == {1: 0}


def test_a_distance_that_finds_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="distance=40"):
        repeats(prints(1, 2), distance=40)


def picture(seed: int, *, size: tuple[int, int] = (320, 240), form: str = "JPEG", quality: int = 90) -> bytes:
    from PIL import Image

    rough = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    smooth = Image.fromarray(rough).resize((320, 240), Image.Resampling.BICUBIC).resize(size)
    smooth.save(buffer, form, quality=quality)
    return buffer.getvalue()


def record(*pictures: bytes) -> Record:
    media = tuple(Media(member=f"{number}.jpg", kind="image") for number in range(len(pictures)))
    payload = {item.member: data for item, data in zip(media, pictures, strict=True)}
    origin = Origin(dataset="d", split="train", id="1")
    return Record(key="k", origin=origin, media=media, annotations=(Caption(text="x"),), payload=payload)


def test_other_sizes_formats_and_qualities_of_a_picture_are_near_and_other_pictures_are_far() -> None:
    pytest.importorskip("imagehash", reason="the extra `duplicates` is not installed")
    shown = [picture(1), picture(1, size=(160, 120)), picture(1, form="PNG"), picture(1, quality=30), picture(2)]
    taken = [fingerprint(record(data), by="perceptual") for data in shown]
    assert repeats(taken, distance=4) == {1: 0, 2: 0, 3: 0}
    exact = [fingerprint(record(data), by="content") for data in (*shown, picture(1))]
    assert repeats(exact, distance=4) == {5: 0}


def test_a_pair_of_pictures_repeats_another_only_in_its_order() -> None:
    pytest.importorskip("imagehash", reason="the extra `duplicates` is not installed")
    first, second = picture(1), picture(2)
    pairs = [record(first, second), record(second, first), record(first, second)]
    assert repeats([fingerprint(pair, by="perceptual") for pair in pairs], distance=4) == {2: 0}
