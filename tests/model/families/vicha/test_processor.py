"""Every random choice of an example comes from its own seed, and batches say all a step needs."""

from __future__ import annotations

import pickle
from dataclasses import fields
from typing import Any

import pytest
import torch

SEEDS = [11, 22, 33, 44, 55, 66]


def test_a_slice_of_a_batch_draws_what_the_whole_batch_draws(tiny_processor: Any, pairs: Any) -> None:
    processor, examples = tiny_processor(), pairs()
    whole = processor(examples, SEEDS)
    for start in (0, 2, 4):
        part = processor(examples[start : start + 2], SEEDS[start : start + 2])
        rows = slice(start, start + 2)
        tokens, concepts = part.text_ids.shape[1], part.concept_ids.shape[1]
        assert torch.equal(part.masked_ids, whole.masked_ids[rows, :tokens])
        assert torch.equal(part.concept_ids, whole.concept_ids[rows, :concepts])
        assert torch.equal(part.patch_noise, whole.patch_noise[rows])
        assert torch.equal(part.match_noise, whole.match_noise[rows])


def test_leaving_an_objective_out_changes_no_other_draw(tiny_processor: Any, pairs: Any) -> None:
    whole = tiny_processor()(pairs(), SEEDS)
    without_images = tiny_processor(masked_image=None)(pairs(), SEEDS)
    without_concepts = tiny_processor(concepts=None)(pairs(), SEEDS)
    assert without_images.patch_noise is None
    assert without_concepts.concept_ids is None
    for other in (without_images, without_concepts):
        assert torch.equal(other.masked_ids, whole.masked_ids)
        assert torch.equal(other.match_noise, whole.match_noise)


def test_another_seed_draws_otherwise_and_the_same_seed_the_same(tiny_processor: Any, pairs: Any) -> None:
    processor = tiny_processor()
    first, same, other = (processor(pairs(), seeds) for seeds in (SEEDS, SEEDS, [seed + 1 for seed in SEEDS]))
    assert torch.equal(first.patch_noise, same.patch_noise)
    assert torch.equal(first.masked_ids, same.masked_ids)
    assert not torch.equal(first.patch_noise, other.patch_noise)


def test_words_are_hidden_as_configured_and_never_the_class_token_or_padding(tiny_processor: Any, pairs: Any) -> None:
    processor = tiny_processor(masked_text={"probability": 0.15})
    examples = pairs(400)
    batch = processor(examples, list(range(400)))
    chosen = torch.zeros(batch.text_ids.numel(), dtype=torch.bool)
    chosen[batch.masked_positions] = True
    chosen = chosen.view_as(batch.text_ids)
    assert not chosen[:, 0].any()
    assert not (chosen & ~batch.text_mask).any()
    assert torch.equal(batch.masked_targets, batch.text_ids[chosen])
    assert torch.equal(batch.masked_ids[~chosen], batch.text_ids[~chosen])
    maskable = batch.text_mask.sum().item() - len(examples)
    assert chosen.sum().item() / maskable == pytest.approx(0.15, abs=0.03)
    shown = batch.masked_ids[chosen]
    assert (shown == processor.tokenizer.mask_id).float().mean().item() == pytest.approx(0.8, abs=0.06)
    # Ten in a hundred stay as they are, and a random word is the true one now and then.
    assert (shown == batch.masked_targets).float().mean().item() == pytest.approx(0.1, abs=0.05)


def test_training_draws_concepts_and_evaluation_takes_all_in_their_order(tiny_processor: Any, pairs: Any) -> None:
    processor = tiny_processor()
    tokenizer, examples = processor.tokenizer, pairs()
    drawn = processor(examples, SEEDS)
    shown = processor(examples, SEEDS, train=False)
    for row, example in enumerate(examples):
        words = tokenizer.decode(drawn.concept_ids[row].tolist()).split()
        assert len(words) == 3
        assert set(words) <= set(example.concepts)
        assert tuple(tokenizer.decode(shown.concept_ids[row].tolist()).split()) == example.concepts
    assert shown.concept_ids.shape == (6, 9)
    assert shown.text_ids.shape == (6, 10)
    assert shown.masked_ids is None


def test_concepts_can_be_parted_by_a_separator(tiny_processor: Any, pairs: Any) -> None:
    processor = tiny_processor(concepts={"layers": 1, "max_tokens": 9, "draw": None, "separator": "sep"})
    batch = processor(pairs(1), [0])
    assert (batch.concept_ids[0] == processor.tokenizer.sep_id).sum() == 3


def test_texts_alone_and_pictures_alone_make_batches(tiny_processor: Any, pairs: Any) -> None:
    texts = tiny_processor()(pairs(images=()), SEEDS, train=False)
    assert texts.pixels is None
    pictures = tiny_processor()(pairs(text="", concepts=()), SEEDS, train=False)
    assert pictures.text_mask.sum(1).tolist() == [1] * 6
    assert pictures.concept_mask.sum(1).tolist() == [1] * 6


def test_captions_are_cleaned(tiny_processor: Any, pairs: Any) -> None:
    processor = tiny_processor()
    batch = processor(pairs(1, text="A RED, red  ball!"), [0], train=False)
    assert processor.tokenizer.decode(batch.text_ids[0].tolist()) == "a red red ball"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": (torch.zeros(3, 8, 16, dtype=torch.uint8),)}, r"pair-0: picture of shape \(3, 8, 16\)"),
        ({"weight": 0.5}, "pair-0: weighs 0.5"),
    ],
)
def test_examples_that_do_not_fit_are_refused_by_key(tiny_processor: Any, pairs: Any, wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_processor()(pairs(1, **wrong), [0])


def test_one_seed_per_example_is_asked_for(tiny_processor: Any, pairs: Any) -> None:
    with pytest.raises(ValueError, match="1 seeds given for 6 examples"):
        tiny_processor()(pairs(), [0])


def test_processor_and_batch_travel_between_processes(tiny_processor: Any, pairs: Any) -> None:
    processor = pickle.loads(pickle.dumps(tiny_processor()))
    batch = processor(pairs(), SEEDS)
    copy = pickle.loads(pickle.dumps(batch)).to("cpu")
    for field in fields(batch):
        ours, theirs = getattr(batch, field.name), getattr(copy, field.name)
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
    assert len(batch) == 6
