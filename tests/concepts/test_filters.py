from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from concepts.filters import best_of_all, best_of_each, near_duplicates, with_last_captions

NAN = float("nan")


def likely(seed: int, count: int) -> tuple[Any, Any]:
    """Similarities with ties and gaps, and the pictures they belong to."""
    rng = np.random.default_rng(seed)
    similarities = rng.integers(0, 9, size=count) / 10
    similarities[rng.random(count) < 0.1] = NAN
    return similarities.astype(np.float32), np.sort(rng.integers(0, count // 3, size=count))


def plain(similarities: Any, places: list[int], quota: int) -> list[int]:
    ranked = sorted((place for place in places), key=lambda place: (-np.nan_to_num(similarities[place], nan=-9), place))
    return [place for place in ranked[:quota] if not np.isnan(similarities[place])]


@pytest.mark.parametrize("share", [0.1, 0.29, 0.5, 0.7, 1.0])
def test_a_share_of_all_is_the_best_of_a_full_sort(share: float) -> None:
    similarities, _ = likely(1, 100)
    assert best_of_all(similarities, share).tolist() == plain(similarities, list(range(100)), round(share * 100))


@pytest.mark.parametrize("keep_one", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_a_share_of_each_is_the_best_of_every_picture(share: float, keep_one: bool) -> None:
    similarities, groups = likely(2, 120)
    wanted: list[int] = []
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group).tolist()
        wanted += plain(similarities, places, max(int(share * len(places) + 1e-9), int(keep_one)))
    assert best_of_each(similarities, groups, share, keep_one=keep_one).tolist() == wanted


def test_a_picture_with_one_caption_is_lost_only_where_that_was_asked_for() -> None:
    similarities, groups = np.array([0.1, 0.3, 0.2], np.float32), np.array([0, 1, 1])
    assert best_of_each(similarities, groups, 0.5, keep_one=True).tolist() == [0, 1]
    assert best_of_each(similarities, groups, 0.5, keep_one=False).tolist() == [1]


def test_every_readable_picture_gets_its_best_caption_back_and_no_other() -> None:
    similarities = np.array([0.1, 0.2, 0.9, 0.8, NAN, 0.05, 0.05], np.float32)
    groups = np.array([0, 0, 1, 1, 2, 3, 3])
    kept = np.zeros(7, np.bool_)
    kept[2] = True
    assert np.flatnonzero(with_last_captions(kept, similarities, groups)).tolist() == [1, 2, 5]
    assert kept.sum() == 1


def test_a_share_that_binary_fractions_miss_is_counted_as_written() -> None:
    assert len(best_of_all(np.linspace(0, 1, 100), 0.29)) == 29


@pytest.mark.parametrize("rows", [3, 7, 1000])
def test_near_duplicates_are_grouped_like_a_graph_of_all_pairs(rows: int) -> None:
    rng = np.random.default_rng(4)
    themes = rng.normal(size=(12, 8))
    vectors = (themes[rng.integers(12, size=60)] + 0.25 * rng.normal(size=(60, 8))).astype(np.float16)
    vectors[17] = NAN
    wide = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    alike = wide @ wide.T >= 0.97
    labels = np.arange(60)
    for _ in range(60):  # spread the smallest label along the pairs
        labels = np.array([min([labels[place], *labels[alike[place]]]) for place in range(60)])
    assert len(set(labels.tolist())) < 50  # there is something to find
    assert near_duplicates(vectors, likeness=0.97, rows=rows).tolist() == labels.tolist()
