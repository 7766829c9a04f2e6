"""Recall at K: ties, several texts per picture, and what chance earns."""

from __future__ import annotations

import pytest
import torch

from trainers.recall import best_ranks, chance, recall, relevance


def test_the_best_of_several_texts_counts() -> None:
    relevant = relevance([[0, 1], [2]], 3)
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.9, 0.8, 0.7]])
    assert best_ranks(scores, relevant).tolist() == [0, 2]


def test_a_tie_counts_against_the_query() -> None:
    relevant = relevance([[0], [1], [2]], 3)
    flat = torch.zeros(3, 3)
    assert best_ranks(flat, relevant).tolist() == [2, 2, 2]
    assert recall(best_ranks(flat, relevant), best_ranks(flat.T, relevant.T)).image_to_text[1] == 0.0


def test_a_query_without_truth_is_an_error() -> None:
    with pytest.raises(ValueError, match="query 1"):
        best_ranks(torch.zeros(2, 2), torch.tensor([[True, False], [False, False]]))


def test_scores_that_are_not_numbers_are_an_error() -> None:
    with pytest.raises(ValueError, match="NaN"):
        best_ranks(torch.full((1, 1), torch.nan), torch.ones(1, 1, dtype=torch.bool))


def test_chance_is_what_random_scores_earn_on_average() -> None:
    torch.manual_seed(0)
    relevant = relevance([[0, 1, 2], [3], [4, 5], [6, 7], [8, 9], [10, 11, 12, 13]], 14)
    expected = chance(relevant)
    draws = 2000
    found = [
        recall(best_ranks(torch.rand(6, 14), relevant), best_ranks(torch.rand(14, 6), relevant.T)) for _ in range(draws)
    ]
    for cutoff in (1, 5, 10):
        mean = sum(one.image_to_text[cutoff] for one in found) / draws
        assert mean == pytest.approx(expected.image_to_text[cutoff], abs=2.0)
        mean = sum(one.text_to_image[cutoff] for one in found) / draws
        assert mean == pytest.approx(expected.text_to_image[cutoff], abs=2.0)
    assert expected.text_to_image[10] == 100.0  # six pictures: the first ten hold them all


def test_the_mean_is_the_mean_of_the_two_directions() -> None:
    relevant = relevance([[0], [1]], 2)
    found = recall(best_ranks(torch.eye(2), relevant), best_ranks(torch.zeros(2, 2), relevant))
    assert found.image_to_text_mean == 100.0
    assert found.mean == pytest.approx((100.0 + found.text_to_image_mean) / 2)
    assert found.as_metrics()["text_to_image_r1"] == 0.0
