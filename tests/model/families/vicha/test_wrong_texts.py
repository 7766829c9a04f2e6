"""Texts that were made to be wrong for their picture: how they reach the match loss, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

SEEDS = list(range(6))


def with_wrong(pairs: Any, *places: int) -> list[Any]:
    return [
        replace(pair, wrong_text="a cat under a table of glass beside nothing") if place in places else pair
        for place, pair in enumerate(pairs())
    ]


def match_logits(family: Any, batch: Any) -> Any:
    return family.step(batch, soften=0.0).match_logits


def test_the_wrong_text_takes_the_place_of_the_drawn_one_in_its_row_alone(
    tiny_family: Any, tiny_processor: Any, pairs: Any
) -> None:
    family, processor = tiny_family(), tiny_processor()
    family.eval()
    plain = processor(pairs(), SEEDS)
    wrong = processor(with_wrong(pairs, 1, 4), SEEDS)
    assert wrong.is_wrong.tolist() == [False, True, False, False, True, False]
    with torch.no_grad():
        before, after = match_logits(family, plain), match_logits(family, wrong)
    changed = ~torch.isclose(before, after, atol=1e-5).all(dim=1)
    assert changed.nonzero().flatten().tolist() == [2 * 6 + 1, 2 * 6 + 4]  # pictures with their drawn texts come last


def test_the_logit_of_a_wrong_text_is_that_of_the_pair_it_would_be(
    tiny_family: Any, tiny_processor: Any, pairs: Any
) -> None:
    family, processor = tiny_family(), tiny_processor()
    family.eval()
    as_pairs = processor([replace(pair, text=pair.wrong_text) for pair in with_wrong(pairs, *range(6))], SEEDS)
    wrong = processor(with_wrong(pairs, *range(6)), SEEDS)
    # Draws follow the length of the text, and with them the concepts that are shown.
    as_pairs = replace(as_pairs, concept_ids=wrong.concept_ids, concept_mask=wrong.concept_mask)
    with torch.no_grad():
        torch.testing.assert_close(
            match_logits(family, wrong)[12:], match_logits(family, as_pairs)[:6], atol=1e-5, rtol=1e-4
        )


def test_matching_learns_to_tell_a_wrong_text_that_no_pair_of_the_batch_holds(
    tiny_family: Any, tiny_processor: Any, pairs: Any
) -> None:
    torch.manual_seed(0)
    family = tiny_family().train()
    batch = tiny_processor()(with_wrong(pairs, *range(6)), SEEDS)
    optimizer = torch.optim.AdamW([value for value in family.parameters() if value.requires_grad], lr=1e-2)
    losses = []
    for _ in range(30):
        step = family.step(batch, soften=0.0)
        losses.append(
            torch.nn.functional.cross_entropy(step.match_logits[12:], torch.zeros(6, dtype=torch.long)).item()
        )
        optimizer.zero_grad()
        step.losses.terms["match"].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_a_batch_without_wrong_texts_holds_no_trace_of_them(tiny_processor: Any, pairs: Any) -> None:
    batch = tiny_processor()(pairs(), SEEDS)
    assert batch.wrong_ids is batch.wrong_mask is batch.is_wrong is None
    assert tiny_processor()(with_wrong(pairs, 0), SEEDS, train=False).wrong_ids is None
