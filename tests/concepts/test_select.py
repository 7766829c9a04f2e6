from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concepts.bank import ConceptBank
from concepts.select import select_concepts, top_cosine


def unit(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    vectors = rng.standard_normal((count, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


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
