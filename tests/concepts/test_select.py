from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concepts.bank import ConceptBank, read_bank, write_bank
from concepts.gpu_screen import GpuScreen
from concepts.select import NOTHING, select_concepts, top_cosine, unlike_first
from concepts.vocabulary import Vocabulary
from shards.errors import DatasetError
from shards.stores import open_storage


def unit(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    vectors = rng.standard_normal((count, width))
    halves: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    return halves


def by_sorting(queries: np.ndarray, items: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    left, right = queries.astype(np.float64), items.astype(np.float64)
    cosine = left @ right.T / np.linalg.norm(left, axis=1)[:, None] / np.linalg.norm(right, axis=1)
    cosine = cosine.astype(np.float32)
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosine, order, axis=1)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 60)),
    k=st.integers(1, 20),
    chunk=st.tuples(st.integers(1, 8), st.integers(1, 25)),
)
def test_chunks_give_what_sorting_everything_gives(
    seed: int, shape: tuple[int, int], k: int, chunk: tuple[int, int]
) -> None:
    (queries, items), (rows, columns) = shape, chunk
    rng = np.random.default_rng(seed)
    left, right = unit(rng, queries, 6), unit(rng, items, 6)
    found = top_cosine(left, right, top_k=k, rows=rows, columns=columns)
    indices, scores = by_sorting(left, right, min(k, items))
    assert np.allclose(found.scores, scores, atol=1e-6)
    # Where two scores differ by one rounding in the reference, their order may; anywhere else it is the same.
    gaps = np.abs(np.diff(scores, axis=1)) > 1e-6
    clear = np.ones_like(scores, dtype=bool)
    clear[:, 1:] &= gaps
    clear[:, :-1] &= gaps
    clear[:, -1] &= k >= items
    assert (found.indices[clear] == indices[clear]).all()


def test_chunk_sizes_change_no_bit() -> None:
    rng = np.random.default_rng(1)
    left, right = unit(rng, 50, 33), unit(rng, 400, 33)
    right[300:350] = right[:50]  # ties across chunks
    whole = top_cosine(left, right, top_k=20)
    for rows, columns in ((1, 7), (13, 64), (50, 399)):
        parts = top_cosine(left, right, top_k=20, rows=rows, columns=columns)
        assert (parts.indices == whole.indices).all()
        assert (parts.scores == whole.scores).all()


def test_equal_scores_are_ordered_by_position() -> None:
    items = np.repeat(np.eye(3, dtype=np.float16)[:2], 4, axis=0)  # 0-3 alike, 4-7 alike
    found = top_cosine(np.eye(3, dtype=np.float16)[:1], items, top_k=6, columns=3)
    assert found.indices.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert found.scores.tolist() == [[1.0, 1.0, 1.0, 1.0, 0.0, 0.0]]


def test_negative_cosines_rank_below_zero_and_keep_their_value() -> None:
    found = top_cosine(np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0], [0.0, -1.0], [-3.0, 4.0], [2.0, 0.0]]), top_k=4)
    assert found.indices.tolist() == [[3, 1, 2, 0]]
    assert found.scores.tolist()[0] == pytest.approx([1.0, 0.0, -0.6, -1.0])


def test_length_does_not_matter_only_direction_does() -> None:
    rng = np.random.default_rng(3)
    left, right = rng.standard_normal((4, 8)), rng.standard_normal((9, 8))
    assert (top_cosine(left, right, top_k=3).indices == top_cosine(left * 2, right * 4, top_k=3).indices).all()


def test_a_bank_smaller_than_k_is_returned_whole() -> None:
    bank = ConceptBank(phrases=("dog", "cat"), vectors=np.eye(2, dtype=np.float16), digest="x")
    found = select_concepts(np.array([[0.2, 0.9]]), bank, top_k=15)
    assert found.indices.tolist() == [[1, 0]]


def test_no_picture_gives_no_row_and_no_concept_wanted_is_an_error() -> None:
    items = np.eye(4, dtype=np.float16)
    assert top_cosine(np.zeros((0, 4)), items, top_k=2).indices.shape == (0, 2)
    with pytest.raises(ValueError, match="top_k is 0"):
        top_cosine(items, items, top_k=0)


def test_a_crowd_of_near_equals_is_put_in_exact_order() -> None:
    rng = np.random.default_rng(4)
    centre = rng.standard_normal(64)
    items = (centre + 1e-3 * rng.standard_normal((3000, 64))).astype(np.float16)
    items[1000:2000] = items[:1000]  # and a thousand ties
    queries = unit(rng, 5, 64)
    found = top_cosine(queries, items, top_k=10, rows=2, columns=100)
    cosine = queries.astype(np.float64) @ items.astype(np.float64).T
    cosine /= np.linalg.norm(queries.astype(np.float64), axis=1)[:, None]
    cosine /= np.linalg.norm(items.astype(np.float64), axis=1)
    order = np.argsort(-cosine.astype(np.float32), axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(found.scores, np.take_along_axis(cosine.astype(np.float32), order, axis=1))
    np.testing.assert_array_equal(found.indices, order)


def test_a_picture_without_a_vector_gets_nothing_and_takes_nothing_from_others() -> None:
    rng = np.random.default_rng(5)
    queries, items = unit(rng, 6, 16), unit(rng, 300, 16)
    whole = top_cosine(queries, items, top_k=4, rows=3, columns=50)
    broken = queries.copy()
    broken[2] = np.nan
    found = top_cosine(broken, items, top_k=4, rows=3, columns=50)
    assert (found.indices[2] == NOTHING).all()
    assert np.isneginf(found.scores[2]).all()
    others = [0, 1, 3, 4, 5]
    assert (found.indices[others] == whole.indices[others]).all()


def test_a_screen_of_torch_changes_no_bit() -> None:
    rng = np.random.default_rng(6)
    queries, items = unit(rng, 40, 32), unit(rng, 900, 32)
    ours = top_cosine(queries, items, top_k=7, rows=16, columns=128)
    theirs = top_cosine(queries, items, top_k=7, rows=16, columns=128, screen=GpuScreen("cpu", held=2))
    np.testing.assert_array_equal(ours.indices, theirs.indices)
    np.testing.assert_array_equal(ours.scores, theirs.scores)


def test_a_threshold_leaves_fewer_concepts_and_a_high_one_none() -> None:
    bank = ConceptBank(phrases=("dog", "cat", "sky"), vectors=np.eye(3, dtype=np.float16), digest="x")
    found = select_concepts(np.array([[0.6, 0.8, 0.0], [0.0, 1.0, 0.0]]), bank, top_k=3, min_score=0.5)
    assert found.indices.tolist() == [[1, 0, NOTHING], [1, NOTHING, NOTHING]]
    assert (select_concepts(np.eye(3), bank, top_k=2, min_score=1.1).indices == NOTHING).all()


def test_near_synonyms_give_way_to_the_next_best_that_is_unlike() -> None:
    rng = np.random.default_rng(7)
    things = unit(rng, 40, 32)
    vectors = np.repeat(things, 6, axis=0) + 0.01 * rng.standard_normal((240, 32))  # six words for each thing
    bank = ConceptBank(phrases=tuple(map(str, range(240))), vectors=vectors.astype(np.float16), digest="x")
    pictures = unit(rng, 9, 32)
    plain = select_concepts(pictures, bank, top_k=5)
    assert max(len(set(row // 6)) for row in plain.indices) < 5
    varied = select_concepts(pictures, bank, top_k=5, max_likeness=0.9)
    for row, first in zip(varied.indices, plain.indices[:, 0], strict=True):
        assert len(set((row // 6).tolist())) == 5
        assert row[0] == first  # the best stays the best


def test_variety_ends_with_the_vocabulary() -> None:
    bank = ConceptBank(
        phrases=("dog", "dogs", "sky"), vectors=np.array([[1, 0], [1, 0], [0, 1]], np.float16), digest="x"
    )
    found = select_concepts(np.array([[0.9, 0.1]]), bank, top_k=3, max_likeness=0.95)
    assert found.indices.tolist() == [[0, 2, NOTHING]]


def test_walking_down_a_ranking_keeps_what_is_unlike() -> None:
    likeness = np.array([[1, 0.95, 0.1], [0.95, 1, 0.2], [0.1, 0.2, 1]])
    assert unlike_first([0.9, 0.8, 0.7], likeness, top_k=3, max_likeness=0.9) == [0, 2]
    assert unlike_first([0.9, -np.inf, -np.inf], likeness, top_k=3, max_likeness=0.9) == [0]


def test_a_stored_bank_is_mapped_and_one_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    vocabulary = Vocabulary(phrases=tuple(f"thing {number}" for number in range(50)), counts=(1,) * 50)
    bank = ConceptBank(phrases=vocabulary.phrases, vectors=unit(rng, 50, 8), digest="x")
    storage = open_storage(tmp_path)
    write_bank(storage, "bank.npy", bank)
    found = read_bank(storage, "bank.npy", vocabulary=vocabulary, digest="x")
    assert isinstance(found.vectors, np.memmap)
    pictures = unit(rng, 4, 8)
    ours, theirs = (select_concepts(pictures, each, 5, max_likeness=0.8) for each in (bank, found))
    np.testing.assert_array_equal(ours.indices, theirs.indices)
    fewer = Vocabulary(phrases=vocabulary.phrases[1:], counts=(1,) * 49)
    with pytest.raises(DatasetError, match="for 49 phrases"):
        read_bank(storage, "bank.npy", vocabulary=fewer, digest="x")
    (tmp_path / "bank.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DatasetError, match="damaged"):
        read_bank(storage, "bank.npy", vocabulary=vocabulary, digest="x")
