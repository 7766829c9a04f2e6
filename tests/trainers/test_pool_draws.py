from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from shards.errors import DatasetError
from shards.pools import Pools
from trainers.pool_draws import negative_answer, negative_caption

POOLS = Pools(
    captions=("A red boat.", "Two cats.", "A dog on grass."),
    objects=("dog", "cat", "boat"),
    answers={
        "how many": ("0", "2", "3"),
        "color": ("red", "blue"),
        "lonely": ("yes",),
        "other": ("table", "left", "sky"),
    },
)
DRAWS = 2000


def generators() -> list[np.random.Generator]:
    return [np.random.default_rng((5, number)) for number in range(DRAWS)]


def shares(texts: list[str]) -> dict[str, float]:
    return {text: count / DRAWS for text, count in Counter(texts).items()}


def test_an_object_is_replaced_in_two_of_five_and_the_caption_in_the_rest() -> None:
    drawn = [negative_caption("A dog on grass.", ["dog"], POOLS, rng) for rng in generators()]
    replaced = {"A cat on grass.", "A boat on grass."}
    assert set(drawn) == replaced | {"A red boat.", "Two cats."}
    assert sum(text in replaced for text in drawn) / DRAWS == pytest.approx(0.4, abs=0.03)


def test_only_whole_words_are_replaced_and_an_object_that_is_not_named_is_left() -> None:
    drawn = {negative_caption("Hotdogs. Dog!", ["dog", "boat"], POOLS, rng) for rng in generators()}
    assert drawn == {"Hotdogs. cat!", "Hotdogs. boat!", "A red boat.", "Two cats."}


def test_the_right_caption_is_never_drawn_and_the_same_address_draws_the_same() -> None:
    drawn = [negative_caption("Two cats.", [], POOLS, rng) for rng in generators()]
    assert "Two cats." not in drawn
    assert drawn == [negative_caption("Two cats.", [], POOLS, rng) for rng in generators()]


def test_a_sure_answer_is_exchanged_for_one_of_its_type() -> None:
    found = shares([negative_answer("red", POOLS, rng) for rng in generators()])
    assert found["blue"] == pytest.approx(0.9, abs=0.03)  # the draw must stay a tenth below the confidence
    assert set(found) == {"blue", "table", "left"}


def test_an_unsure_answer_is_exchanged_for_any_other() -> None:
    assert set(shares([negative_answer("red", POOLS, rng, confidence=0.1) for rng in generators()])) == {
        "table",
        "left",
    }


def test_a_number_is_often_one_more_or_less_and_never_below_zero() -> None:
    found = shares([negative_answer("2", POOLS, rng) for rng in generators()])
    assert found["1"] == pytest.approx(0.2, abs=0.03)
    assert found["3"] > 0.2
    assert "2" not in found
    assert "-1" not in shares([negative_answer("0", POOLS, rng) for rng in generators()])


def test_a_type_with_one_answer_falls_back_on_the_others() -> None:
    assert set(shares([negative_answer("yes", POOLS, rng) for rng in generators()])) <= {"table", "left", "sky"}


def test_a_pool_with_nothing_else_is_named() -> None:
    with pytest.raises(DatasetError, match=r"all_captions.txt"):
        negative_caption("Alone.", [], Pools(captions=("Alone.",)), np.random.default_rng(0))
