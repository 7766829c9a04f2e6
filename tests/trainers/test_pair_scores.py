"""Scores of all pairs, some queries at a time, are those of whole tables."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainers import pair_scores
from trainers.pair_scores import Cosines, Reranked, row_blocks, truth_ranks
from trainers.recall import best_ranks, relevance
from trainers.rerank import DIRECTIONS, Direction, candidate_pairs, candidates

IMAGES, TEXTS, K = 7, 23, 3


def _cosines() -> Tensor:
    return torch.rand(IMAGES, TEXTS, generator=torch.Generator().manual_seed(1)) * 2 - 1


def _logits() -> Tensor:
    return torch.randn(IMAGES, TEXTS, generator=torch.Generator().manual_seed(2)) * 4


def _found(*directions: Direction) -> Reranked:
    chosen = candidate_pairs(_cosines(), K, directions)
    return Reranked(Cosines(_cosines()), chosen, _logits().flatten()[chosen.pairs])


def _table(scores: pair_scores.PairScores, direction: Direction) -> Tensor:
    return torch.cat([rows for _, rows in row_blocks(scores, direction)])


@pytest.mark.parametrize("at_a_time", [1, 5 * TEXTS, 1000])
def test_blocks_of_any_size_make_up_the_published_tables(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_scores, "PAIRS_AT_A_TIME", at_a_time)
    found = _found(*DIRECTIONS)
    by_image, by_text = candidates(_cosines(), K), candidates(_cosines().T, K)
    assert torch.equal(_table(found, "image_to_text"), torch.where(by_image, _logits(), _cosines() - 100))
    assert torch.equal(_table(found, "text_to_image"), torch.where(by_text, _logits().T, _cosines().T - 100))
    assert torch.equal(_table(Cosines(_cosines()), "text_to_image"), _cosines().T)
    covered = [query for chosen, _ in row_blocks(found, "text_to_image") for query in chosen]
    assert covered == list(range(TEXTS))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_where_one_side_asks_its_scores_are_those_of_both_asking_and_fewer_pairs_are_matched(
    direction: Direction,
) -> None:
    assert torch.equal(_table(_found(direction), direction), _table(_found(*DIRECTIONS), direction))
    alone, both = (candidate_pairs(_cosines(), K, asked) for asked in ((direction,), DIRECTIONS))
    assert len(alone.pairs) == K * (IMAGES if direction == "image_to_text" else TEXTS) < len(both.pairs)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_ranks_of_the_truth_are_those_of_whole_tables(direction: Direction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_scores, "PAIRS_AT_A_TIME", 2 * TEXTS)
    relevant = relevance([range(3 * image, 3 * image + 3) for image in range(IMAGES)], TEXTS)
    relevant[0, -2:] = True
    found = _found(*DIRECTIONS)
    own = relevant if direction == "image_to_text" else relevant.T
    assert torch.equal(truth_ranks(found, relevant, direction), best_ranks(_table(found, direction), own))
