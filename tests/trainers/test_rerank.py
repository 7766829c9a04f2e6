"""Re-ranking: the best candidates by cosine get the match head's logit, each pair once; the rest stay below."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.pair_scores import Cosines, Reranked
from trainers.recall import best_ranks
from trainers.rerank import DIRECTIONS, Scoring, candidate_pairs, candidates, match_picture
from trainers.states import PackedTexts


class Remembering:
    """Matches by a fixed table; states carry their own number, so that it knows whom it was given."""

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.pairs: list[tuple[int, int]] = []
        self.widths: list[int] = []

    def match_pairs(self, image_states: Tensor, text_states: Tensor, text_mask: Tensor) -> Tensor:
        image = int(image_states[0, 0, 0])
        texts = [int(number) for number in text_states[:, 0, 0]]
        self.pairs += [(image, text) for text in texts]
        self.widths.append(text_states.shape[1])
        return self.table[image, texts]

    def judge_pairs(self, image_states: Tensor, text_states: Tensor, text_mask: Tensor, similarity: Tensor) -> Tensor:
        return self.match_pairs(image_states, text_states, text_mask) + 1000 * (similarity - 1)


@dataclass(frozen=True)
class States:
    """What both towers made of a gallery."""

    similarity: Tensor  # (images, texts)
    images: Tensor  # (images, P, Dv)
    texts: PackedTexts


@dataclass(frozen=True)
class Tables:
    """All scores of both directions."""

    image_to_text: Tensor  # (images, texts)
    text_to_image: Tensor  # (texts, images)


def _states(images: int, texts: int) -> States:
    generator = torch.Generator().manual_seed(0)

    def unit(rows: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(rows, 5, generator=generator), dim=1)

    lengths = 1 + torch.arange(texts) % 4
    packed = PackedTexts(lengths, torch.ones(texts, dtype=torch.bool), torch.empty(int(lengths.sum()), 2))
    packed.put(range(texts), torch.arange(texts).float()[:, None, None].expand(texts, 6, 2))
    return States(
        similarity=unit(images) @ unit(texts).T,
        images=torch.arange(images).float()[:, None, None].expand(images, 3, 2),
        texts=packed,
    )


def _rerank(matcher: Remembering, states: States, *, k: int, pairs_per_pass: int, scoring: Scoring = "match") -> Tables:
    images, texts = states.similarity.shape
    chosen = candidate_pairs(states.similarity, k, DIRECTIONS)
    scores = [
        match_picture(
            matcher,
            states.images[image : image + 1],
            chosen.pairs[chosen.pairs // texts == image] % texts,
            states.texts,
            states.similarity[image],
            pairs_per_pass=pairs_per_pass,
            scoring=scoring,
        )
        for image in range(images)
    ]
    found = Reranked(Cosines(states.similarity), chosen, torch.cat(scores))
    return Tables(
        image_to_text=found.rows("image_to_text", range(images)),
        text_to_image=found.rows("text_to_image", range(texts)),
    )


def test_each_candidate_of_either_direction_is_matched_exactly_once() -> None:
    states = _states(7, 20)
    matcher = Remembering(torch.randn(7, 20))
    _rerank(matcher, states, k=3, pairs_per_pass=4)
    similarity = states.similarity
    wanted = candidates(similarity, 3) | candidates(similarity.T, 3).T
    assert sorted(matcher.pairs) == [tuple(pair) for pair in wanted.nonzero().tolist()]
    assert max(matcher.widths) == 4  # no text is longer: the padding beyond is not computed


def test_scores_are_logits_for_the_candidates_and_fillers_in_cosine_order_below() -> None:
    states = _states(6, 9)
    table = torch.randn(6, 9) * 5
    found = _rerank(Remembering(table), states, k=2, pairs_per_pass=64)
    similarity = states.similarity
    by_image, by_text = candidates(similarity, 2), candidates(similarity.T, 2)
    assert torch.equal(found.image_to_text[by_image], table[by_image])
    assert torch.equal(found.text_to_image[by_text], table.T[by_text])
    assert bool((by_image.sum(dim=1) == 2).all())
    assert float(found.image_to_text[~by_image].max()) < float(table.min())
    below = found.image_to_text.masked_fill(by_image, -1000).argmax(dim=1)
    assert torch.equal(below, similarity.masked_fill(by_image, -1000).argmax(dim=1))


def test_more_candidates_than_there_are_means_all() -> None:
    states = _states(3, 4)
    table = torch.randn(3, 4)
    found = _rerank(Remembering(table), states, k=128, pairs_per_pass=2)
    assert torch.equal(found.image_to_text, table)
    assert torch.equal(found.text_to_image, table.T)


def test_a_perfect_matcher_puts_the_truth_first_wherever_cosine_lets_it_through() -> None:
    states = _states(5, 5)
    relevant = torch.eye(5, dtype=torch.bool)
    found = _rerank(Remembering(torch.eye(5) * 10), states, k=5, pairs_per_pass=8)
    assert best_ranks(found.image_to_text, relevant).tolist() == [0] * 5


def test_both_experts_together_see_the_cosine_of_each_pair_and_stay_above_the_rest() -> None:
    states = _states(6, 9)
    table = torch.randn(6, 9)
    found = _rerank(Remembering(table), states, k=3, pairs_per_pass=4, scoring="match_and_contrast")
    similarity = states.similarity
    by_text = candidates(similarity.T, 3)
    expected = (table + 1000 * (similarity - 1)).T
    torch.testing.assert_close(found.text_to_image[by_text], expected[by_text])
    # Scores far below the published filler: what was not matched still comes after whatever was.
    lowest_matched = found.text_to_image.masked_fill(~by_text, torch.inf).min(dim=1).values
    highest_other = found.text_to_image.masked_fill(by_text, -torch.inf).max(dim=1).values
    assert float(expected[by_text].min()) < -200
    assert bool((highest_other < lowest_matched).all())
