"""Questions and answers against the published code: training loss, soft answers, and the ranking of an answer list."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.families.vicha.answers import AnswersStep, RankTokens, VichaAnswers
from model.families.vicha.batch import AnswersBatch
from model.objectives.answers import answer_texts

pytestmark = [
    pytest.mark.golden("vicha/vqa"),
    pytest.mark.parametrize("concepts", [True, False], ids=["concepts", "plain"]),
]


@pytest.fixture
def build(case: Any, concepts: bool, tuned_family: Any) -> Any:
    """The case's model; keywords choose between what was released and what was meant."""

    def build(**choices: str) -> VichaAnswers:
        head = {"kind": "answers", "layers": case.config["decoder"]["num_hidden_layers"]}
        head |= {"distil": {"momentum": case.config["momentum"]}}
        family: VichaAnswers = tuned_family(case, head | choices, concepts=concepts)
        return family

    return build


@pytest.fixture
def batch(case: Any, concepts: bool, concepts_of: Any) -> AnswersBatch:
    inputs = case.inputs
    counts = inputs["answers_per_question"]
    texts = answer_texts(inputs["answer_input_ids"], inputs["answer_attention_mask"])
    return AnswersBatch(
        keys=tuple(map(str, range(len(counts)))),
        pixels=inputs["image"],
        **(concepts_of(inputs, "kw") if concepts else {}),
        text_ids=inputs["question_input_ids"],
        text_mask=inputs["question_attention_mask"].bool(),
        answer_ids=texts.ids,
        answer_mask=texts.mask,
        answer_owners=torch.arange(len(counts)).repeat_interleave(counts),
        answer_weights=inputs["answer_weights"],
        target_positions=texts.positions,
        target_ids=texts.targets,
    )


@pytest.fixture
def expected(case: Any, concepts: bool) -> dict[str, torch.Tensor]:
    """The case's numbers of this variant, by their names without it."""
    mark = "noconcept."
    return {
        name.removeprefix(mark): value for name, value in case.expected.items() if name.startswith(mark) is not concepts
    }


def _at_targets(logits: torch.Tensor, batch: AnswersBatch) -> torch.Tensor:
    """Pick from (A, T or T - 1, V) published logits the (M, V) rows that a real token follows."""
    assert batch.target_positions is not None
    assert batch.answer_ids is not None
    width = batch.answer_ids.shape[1]
    return logits[batch.target_positions // width, batch.target_positions % width]


def test_the_released_step_forgets_its_soft_answers(
    case: Any, build: Any, batch: AnswersBatch, expected: Any, close: Any
) -> None:
    for alpha in (0.0, round(case.config["alpha"], 6)):
        step: AnswersStep = build(soft_answers="ignored").step(batch, soften=alpha)
        if "image_embeds" in expected:
            family = build()
            close(family.look(family.student, batch.pictures)[0].top, expected["image_embeds"], "image_embeds")
        close(step.asked, expected["question_states"], "question_states")
        close(step.logits, _at_targets(expected["decoder_logits"], batch), "decoder_logits")
        for name in (f"alpha{alpha}", "nodistill"):
            close(step.answer_losses, expected[f"{name}.answer_loss"], f"{name}.answer_loss")
            close(step.losses.total, expected[f"{name}.loss"], f"{name}.loss", atol=1e-6)


def test_all_positions_are_decoded_as_the_reference_does(
    build: Any, batch: AnswersBatch, expected: Any, close: Any
) -> None:
    family = build()
    close(family.student.decoder.logits(family.step(batch, soften=0.0).decoded), expected["decoder_logits"], "logits")


def test_soft_answers_count_by_default(case: Any, build: Any, batch: AnswersBatch, expected: Any, close: Any) -> None:
    alpha = case.config["alpha"]
    step: AnswersStep = build().step(batch, soften=alpha)
    assert step.twin_logits is not None
    close(step.twin_logits, _at_targets(expected["decoder_logits_m"], batch), "decoder_logits_m")
    close(step.losses.total, expected["loss_if_alpha_were_used"], "loss_if_alpha_were_used", atol=1e-6)
    only_soft: AnswersStep = build().step(batch, soften=1.0)
    close(only_soft.answer_losses, expected["answer_loss_soft"], "answer_loss_soft")


def test_gradients_and_the_twin_equal_the_reference(
    case: Any, build: Any, batch: AnswersBatch, same_gradients: Any, same_state: Any
) -> None:
    family = build(soft_answers="ignored")
    family.step(batch, soften=case.config["alpha"]).losses.total.backward()
    variant = "noconcept" if family.config.concepts is None else "concept"
    same_gradients(family, case.json(f"grad_norms.{variant}.json"))
    same_state(case, family)


def _request(case: Any) -> RankTokens:
    ids, mask = case.inputs["candidate_input_ids"], case.inputs["candidate_attention_mask"].bool()
    names = tuple(map(str, range(len(ids))))
    return RankTokens(candidates=names, keep=case.config["k_test"], ids=ids, mask=mask)


def test_the_released_ranking_counts_the_first_token_twice(
    case: Any, build: Any, batch: AnswersBatch, expected: Any, close: Any
) -> None:
    family = build(first_token="twice").eval()
    found = family.predict(batch, _request(case))
    assert torch.equal(found.places, expected["rank.topk_ids"])
    close(found.scores, expected["rank.topk_probs"], "rank.topk_probs")


def test_by_default_a_candidates_score_is_the_likelihood_of_the_whole_answer(
    case: Any, build: Any, batch: AnswersBatch
) -> None:
    family = build().eval()
    request = _request(case)
    everything = RankTokens(candidates=request.candidates, keep=len(request.ids), ids=request.ids, mask=request.mask)
    found = family.predict(batch, everything)
    asked = family.ask(family.student, batch)
    texts = answer_texts(request.ids, request.mask)
    for row in range(len(batch)):
        whose = torch.full((len(request.ids),), row)
        decoded = family.student.decoder(texts.ids, texts.mask, asked, batch.text_mask, whose)
        log_odds = family.student.decoder.logits(decoded).log_softmax(dim=2)[:, :-1]
        told = log_odds.gather(2, texts.ids[:, 1:, None])[:, :, 0].masked_fill(~texts.mask[:, 1:], 0.0).sum(dim=1)
        torch.testing.assert_close(found.scores[row], told.softmax(dim=0)[found.places[row]], rtol=1e-4, atol=1e-6)
