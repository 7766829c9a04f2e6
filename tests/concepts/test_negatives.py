from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from concepts import negatives
from concepts.caption_column import CaptionBlock
from concepts.negative_column import NegativePlan
from concepts.negatives import Negative, cleaned, mine_negatives

Found = list[list[Negative]]
WORDS = ("dog", "cat", "boat", "tree", "house", "ball", "sky", "sea")


def unit(vectors: Any) -> Any:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


class World:
    """Pictures around a few themes, with captions near them: many near duplicates, some wordings shared."""

    def __init__(self, *, pictures: int = 60, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        themes = rng.normal(size=(6, 12))
        theme = rng.integers(6, size=pictures)
        self.keys = [f"picture-{number}" for number in range(pictures)]
        self.vectors = unit(themes[theme] + 0.5 * rng.normal(size=(pictures, 12)))
        owners = np.repeat(np.arange(pictures), rng.integers(0, 6, size=pictures))  # some pictures have no caption
        self.captions = CaptionBlock(
            texts=[
                f"A {WORDS[rng.integers(8)]} number {rng.integers(12)}{'.' * rng.integers(2)}" for _ in owners.tolist()
            ],
            sources=np.asarray(self.keys, np.object_)[owners],
            vectors=unit(themes[theme[owners]] + 0.4 * rng.normal(size=(len(owners), 12))),
        )

    def blocks(self, cuts: Sequence[int]) -> list[CaptionBlock]:
        edges = [0, *cuts, len(self.captions.texts)]
        return [part(self.captions, start, end) for start, end in pairwise(edges)]

    def mine(self, cuts: Sequence[int] = (), *, top_k: int = 5, guard_cosine: float = 0.9) -> Found:
        return mine_negatives(
            self.keys, self.vectors, self.captions, self.blocks(cuts), top_k=top_k, guard_cosine=guard_cosine
        )


def part(block: CaptionBlock, start: int, end: int) -> CaptionBlock:
    return CaptionBlock(
        texts=block.texts[start:end], sources=block.sources[start:end], vectors=block.vectors[start:end]
    )


def cosine(left: Any, right: Any) -> float:
    wide, other = left.astype(np.float64), right.astype(np.float64)
    return float(np.float32(wide @ other / (np.sqrt(wide @ wide) * np.sqrt(other @ other))))


def plain_search(world: World, *, top_k: int, guard_cosine: float) -> Found:
    captions, result = world.captions, []
    for key, vector in zip(world.keys, world.vectors, strict=True):
        own = [place for place, source in enumerate(captions.sources) if source == key]
        seen = {cleaned(captions.texts[place]) for place in own}
        scores = [cosine(vector, caption) for caption in captions.vectors]
        chosen: list[Negative] = []
        for place in sorted(range(len(scores)), key=lambda place: -scores[place]):
            text, caption = captions.texts[place], captions.vectors[place]
            if place in own or cleaned(text) in seen:
                continue
            if any(cosine(caption, captions.vectors[mine]) > guard_cosine for mine in own):
                continue
            seen.add(cleaned(text))
            chosen.append(Negative(text=text, score=scores[place], source=captions.sources[place]))
        result.append(chosen[:top_k])
    return result


@pytest.mark.parametrize(("top_k", "guard_cosine"), [(1, 0.9), (5, 0.9), (5, 0.3), (12, -0.2), (1000, 1.0)])
def test_the_search_equals_a_plain_double_loop(top_k: int, guard_cosine: float) -> None:
    world = World()
    assert world.mine([20, 21, 90], top_k=top_k, guard_cosine=guard_cosine) == plain_search(
        world, top_k=top_k, guard_cosine=guard_cosine
    )


@pytest.mark.parametrize("guard_cosine", [0.9, 0.2])
def test_where_the_captions_are_cut_changes_nothing(guard_cosine: float) -> None:
    world = World(seed=3)
    whole = world.mine(guard_cosine=guard_cosine)
    for cuts in ([1], [50, 50, 51], range(1, len(world.captions.texts)), range(7, len(world.captions.texts), 7)):
        assert world.mine(list(cuts), guard_cosine=guard_cosine) == whole


def test_how_many_are_compared_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(seed=4)
    whole = world.mine([30])
    monkeypatch.setattr(negatives, "ROWS", 7)
    monkeypatch.setattr(negatives, "COLUMNS", 11)
    assert world.mine([30]) == whole


def test_no_picture_gets_a_caption_of_its_own_nor_one_wording_twice() -> None:
    world = World(seed=1)
    own: dict[str, set[str]] = {key: set() for key in world.keys}
    for text, source in zip(world.captions.texts, world.captions.sources, strict=True):
        own[source].add(cleaned(text))
    for key, found in zip(world.keys, world.mine(guard_cosine=1.0), strict=True):
        words = [cleaned(negative.text) for negative in found]
        assert key not in {negative.source for negative in found}
        assert not own[key] & set(words)
        assert len(set(words)) == len(words) == 5


def test_the_guard_leaves_out_what_means_the_same_and_what_says_the_same() -> None:
    axes = np.eye(4)
    captions = CaptionBlock(
        texts=["A dog runs.", "A hound is running", "a DOG runs!", "A dog sleeps", "A cat"],
        sources=np.asarray(["a", "b", "c", "d", "e"], np.object_),
        vectors=unit(np.stack([axes[0], axes[0] + 0.3 * axes[1], axes[2], axes[0] + axes[1], axes[3]])),
    )

    def left(guard_cosine: float) -> list[str]:
        (found,) = mine_negatives(
            ["a"], unit(axes[:1]), part(captions, 0, 1), [captions], top_k=9, guard_cosine=guard_cosine
        )
        return [negative.text for negative in found]

    assert left(0.9) == ["A dog sleeps", "A cat"]  # 0.96 to its own caption; the same words; 0.71; 0
    assert left(0.99) == ["A hound is running", "A dog sleeps", "A cat"]
    assert left(0.5) == ["A cat"]


def test_a_guard_that_leaves_little_is_searched_to_the_end() -> None:
    rng = np.random.default_rng(2)
    near = unit(np.eye(8)[:1] + 0.01 * rng.normal(size=(500, 8)))
    far = unit(np.eye(8)[1:3])
    captions = CaptionBlock(
        texts=[f"caption {number}" for number in range(502)],
        sources=np.asarray([f"picture-{number}" for number in range(502)], np.object_),
        vectors=np.concatenate((near, far)),
    )
    (found,) = mine_negatives(["picture-0"], near[:1], part(captions, 0, 1), [captions], top_k=2, guard_cosine=0.9)
    assert {negative.text for negative in found} == {"caption 500", "caption 501"}


def test_a_lone_picture_has_no_negatives() -> None:
    world = World(pictures=1, seed=5)
    assert len(world.captions.texts) > 0
    assert world.mine() == [[]]


def test_the_plan_names_everything_that_decides_the_negatives() -> None:
    plan = NegativePlan(embedder={"weights": "a"}, dataset="d", top_k=2, guard_cosine=0.9)
    names = {plan.negatives_digest8} | {
        replace(plan, **change).negatives_digest8
        for change in (
            {"embedder": {"weights": "c"}},
            {"dataset": "e"},
            {"top_k": 3},
            {"guard_cosine": 0.8},
            {"guard_picture": 0.8},
        )
    }
    assert len(names) == 6
    assert replace(plan, top_k=3).caption_digest8 == plan.caption_digest8


def test_captions_of_a_picture_that_is_nearly_the_same_are_left_out() -> None:
    pictures = unit(np.array([[1, 0.0, 0], [1, 0.1, 0], [0, 1, 0.0]]))
    captions = CaptionBlock(
        texts=["own", "of the twin", "of another", "unread"],
        sources=np.array(["a", "b", "c", "d"], object),
        vectors=unit(np.array([[1, 0, 1.0], [1, 0, 0.0], [1, 1, 0.0], [1, 0, 0.2]])),
        pictures=np.concatenate([pictures, np.full((1, 3), np.nan, np.float16)]),
    )

    def left(guard_picture: float) -> list[str]:
        (found,) = mine_negatives(
            ["a"],
            pictures[:1],
            part(captions, 0, 1),
            [captions],
            top_k=9,
            guard_cosine=1.0,
            guard_picture=guard_picture,
        )
        return [negative.text for negative in found]

    assert left(1.0) == ["of the twin", "unread", "of another"]
    assert left(0.9) == ["unread", "of another"]


def test_what_has_no_word_is_no_caption_to_learn_from() -> None:
    texts = ("...", "\U0001f600", "\u200b", "\u72ac", "a dog")
    block = CaptionBlock(texts=texts, sources=np.asarray(["other"] * 5, np.object_), vectors=unit(np.eye(5, 8) + 0.1))
    none = CaptionBlock(texts=(), sources=np.zeros(0, np.object_), vectors=np.zeros((0, 8), np.float16))
    found = mine_negatives(["mine"], unit(np.ones((1, 8))), none, [block], top_k=5, guard_cosine=1.0)
    assert {each.text for each in found[0]} == {"\u72ac", "a dog"}
