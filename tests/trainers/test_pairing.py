from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shards.address import Address
from shards.records import Caption, Origin, Record
from shards.stream import Item
from trainers.pairing import wrong_text_of

RECORD = Record(
    key="k",
    origin=Origin(dataset="d", split="train", id="1"),
    media=(),
    annotations=(Caption(text="A dog."), Caption(text="A red boat.")),
)
HARD: Mapping[str, Any] = {
    "captions": ["A cat.", "A tree.", "A house."],
    "scores": [0.3, 0.2, 0.1],
    "sources": ["a", "b", "c"],
}
SWAPS: Mapping[str, Any] = {
    "captions": ["A cat.", "A blue boat."],
    "annotations": [0, 1],
    "kinds": ["replace_object", "replace_attribute"],
}


def item(row: Mapping[str, Any] | None, annotation: int | None = 1) -> Item:
    sidecars = {} if row is None else {"negatives": row}
    address = Address.__new__(Address)  # where it was read from plays no part
    return Item(address=address, record=RECORD, annotation=annotation, sidecars=sidecars)


def drawn(row: Mapping[str, Any] | None, *, share: float, annotation: int | None = 1) -> list[str]:
    return [wrong_text_of(item(row, annotation), np.random.default_rng((3, draw)), share=share) for draw in range(300)]


def test_every_hard_caption_is_drawn_and_the_same_address_draws_the_same() -> None:
    first = drawn(HARD, share=1.0)
    assert set(first) == set(HARD["captions"])
    assert first == drawn(HARD, share=1.0)


def test_a_caption_gets_what_was_made_of_itself() -> None:
    assert set(drawn(SWAPS, share=1.0)) == {"A blue boat."}
    assert set(drawn(SWAPS, share=1.0, annotation=0)) == {"A cat."}
    assert set(drawn(SWAPS, share=1.0, annotation=None)) == {"A cat."}


def test_the_share_says_how_often() -> None:
    found = drawn(HARD, share=0.25)
    assert 45 <= sum(bool(text) for text in found) <= 105
    assert set(drawn(HARD, share=0.0)) == {""}


def test_a_stream_without_wrong_captions_draws_nothing_and_leaves_the_generator_as_it_is() -> None:
    rng = np.random.default_rng(1)
    assert wrong_text_of(item(None), rng, share=1.0) == ""
    assert rng.random() == np.random.default_rng(1).random()
    assert set(drawn({"captions": [], "annotations": [], "kinds": []}, share=1.0)) == {""}
