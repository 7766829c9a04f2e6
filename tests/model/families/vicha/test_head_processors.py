"""Questions, classes and statements become batches: cleaned, weighted, drawn by their own seeds, or refused by key."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch

from model.families.vicha import build_processor
from model.family import Rank
from model.tokenizer import SPECIALS, WordPiece
from tests.model.families.vicha.conftest import HEADS, WORDS, head_examples

SEEDS = [1, 2, 3, 4]


@pytest.fixture
def processor(tiny_config: Any) -> Any:
    """The processor of a head."""

    def build(kind: str, **parts: Any) -> Any:
        off = dict.fromkeys(("hierarchy", "masked_text", "masked_image"))
        config = tiny_config(head=HEADS[kind], contrast={}, **off | parts)
        return build_processor(config, WordPiece([*SPECIALS, *WORDS]))

    return build


def test_answers_end_with_a_separator_and_weigh_what_their_examples_say(processor: Any) -> None:
    made = processor("answers")
    examples = head_examples("answers")
    examples[1] = replace(examples[1], weight=0.5)
    batch = made(examples, SEEDS)
    assert batch.answer_owners.tolist() == [0, 1, 1, 2, 3, 3]
    torch.testing.assert_close(batch.answer_weights, torch.tensor([0.7, 0.35, 0.15, 0.7, 0.7, 0.3]))
    last = batch.answer_mask.sum(1) - 1
    assert (batch.answer_ids.gather(1, last[:, None]) == made.tokenizer.sep_id).all()
    assert made.tokenizer.decode(batch.text_ids[0].tolist()) == "the ball on the grass"
    assert made(examples, SEEDS, train=False).answer_ids is None


def test_candidates_are_cut_as_answers_are(processor: Any) -> None:
    made = processor("answers")
    request = made.request(Rank(candidates=("red", "a ball"), keep=1))
    batch = made(head_examples("answers"), SEEDS)
    assert request.ids[0, :3].tolist() == batch.answer_ids[0, :3].tolist()
    assert (request.candidates, request.keep) == (("red", "a ball"), 1)


def test_the_two_pictures_of_a_statement_keep_their_own_concepts(processor: Any) -> None:
    made = processor("compare")
    batch = made(head_examples("compare"), SEEDS, train=False)
    assert made.tokenizer.decode(batch.concept_ids[1].tolist()) == "ball cube"
    assert made.tokenizer.decode(batch.second_concept_ids[1].tolist()) == "sand"
    assert batch.labels.tolist() == [1, 0, 1, 0]
    with pytest.raises(ValueError, match="e-0: has 1 pictures where 2 are needed"):
        made([replace(each, images=each.images[:1]) for each in head_examples("compare")], SEEDS)


def test_concepts_are_drawn_by_the_examples_own_seed(processor: Any) -> None:
    made = processor("classes")
    whole, part = made(head_examples("classes"), SEEDS), made(head_examples("classes")[2:], SEEDS[2:])
    width = part.concept_ids.shape[1]
    assert torch.equal(whole.concept_ids[2:, :width], part.concept_ids)


@pytest.mark.parametrize("kind", ["answers", "classes", "compare"])
def test_batches_travel_and_move_whole(processor: Any, kind: str) -> None:
    batch = pickle.loads(pickle.dumps(processor(kind)(head_examples(kind), SEEDS))).to("meta")
    assert batch.pixels.device.type == "meta"
    assert batch.text_ids.device.type == "meta"
    assert len(batch) == 4


def test_examples_that_do_not_fit_are_refused_by_key(processor: Any) -> None:
    with pytest.raises(ValueError, match="e-0: this vicha reads Generate examples, not Classify"):
        processor("answers")(head_examples("classes"), SEEDS)
    with pytest.raises(ValueError, match=r"e-0: classes .* where the model tells apart"):
        processor("classes")([replace(each, classes=("a", "b")) for each in head_examples("classes")], SEEDS)
    with pytest.raises(ValueError, match="e-0: has no answer to learn"):
        processor("answers")([replace(each, targets=()) for each in head_examples("answers")], SEEDS)
    with pytest.raises(ValueError, match="2 seeds given for 4 examples"):
        processor("compare")(head_examples("compare"), SEEDS[:2])


def test_labels_that_nobody_knows_make_a_batch_without_labels(processor: Any) -> None:
    unknown = [replace(each, label=None) for each in head_examples("compare")]
    assert processor("compare")(unknown, SEEDS, train=False).labels is None
