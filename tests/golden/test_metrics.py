"""Recall, answers and boxes against the published evaluation code."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from pipelines.questions import weighted
from shards.records import Question
from trainers.metrics.referring import Convention, found_by_split, intersection_over_union
from trainers.metrics.vqa_accuracy import Rules, human_answers, normalise_answer, vqa_accuracy, vqa_scores
from trainers.recall import Recall, best_ranks, recall, relevance

pytestmark = pytest.mark.filterwarnings("error")


def _published_names(found: Recall) -> dict[str, float]:
    """Our numbers under the names of the reference: `txt` is the best text for an image, `img` the image of a text."""
    named = {f"txt_r{cutoff}": value for cutoff, value in found.image_to_text.items()}
    named |= {f"img_r{cutoff}": value for cutoff, value in found.text_to_image.items()}
    return named | {
        "txt_r_mean": found.image_to_text_mean,
        "img_r_mean": found.text_to_image_mean,
        "r_mean": found.mean,
    }


def _relevant(texts_of_image: dict[str, list[int]], texts: int) -> Tensor:
    return relevance([texts_of_image[str(image)] for image in range(len(texts_of_image))], texts)


@pytest.mark.golden("metrics/retrieval")
def test_recall_equals_the_reference_on_full_and_reranked_scores(case: Any) -> None:
    similarity = case.inputs["similarity_image_by_text"]
    relevant = _relevant(case.json("ids.json")["img2txt"], similarity.shape[1])
    expected = case.json("expected.json")
    matrices = {
        "full_matrix": (similarity, similarity.T),
        "reranked": (case.inputs["reranked_image_to_text"], case.inputs["reranked_text_to_image"]),
    }
    for name, (image_to_text, text_to_image) in matrices.items():
        found = _published_names(recall(best_ranks(image_to_text, relevant), best_ranks(text_to_image, relevant.T)))
        assert found == pytest.approx(expected[name], rel=1e-9, abs=1e-9), name


@pytest.mark.golden("vicha/retrieval")
def test_recall_equals_the_reference_on_the_retrieval_case(case: Any) -> None:
    # The model's own matrices hold ties among their fillers; the reference says to compare the random ones strictly.
    image_to_text = case.inputs.get("metric_demo.score_i2t", case.expected.get("metric_demo.score_i2t"))
    text_to_image = case.inputs.get("metric_demo.score_t2i", case.expected.get("metric_demo.score_t2i"))
    images, texts = image_to_text.shape
    share = texts // images  # text t belongs to image t // share
    relevant = relevance([range(image * share, (image + 1) * share) for image in range(images)], texts)
    found = _published_names(recall(best_ranks(image_to_text, relevant), best_ranks(text_to_image, relevant.T)))
    assert found == pytest.approx(case.json("metrics.json")["metric_demo"], rel=1e-9, abs=1e-9)


ANSWER_RULES: dict[Rules, str] = {"official": "official_v2", "older": "reference_in_papers_repository"}


@pytest.mark.golden("metrics/vqa_accuracy")
@pytest.mark.parametrize("rules", ANSWER_RULES)
def test_answers_score_as_the_public_evaluation_says(case: Any, rules: Rules) -> None:
    said = {str(row["question_id"]): row["answer"] for row in case.json("predictions.json")}
    expected = case.json("expected.json")[ANSWER_RULES[rules]]
    for row in case.json("annotations.json")["annotations"]:
        id, answers = str(row["question_id"]), [answer["answer"] for answer in row["answers"]]
        found = round(100 * vqa_accuracy(said[id], answers, rules=rules), 4)
        assert found == pytest.approx(expected["per_question"][id], abs=1e-4), (id, said[id], answers)


@pytest.mark.golden("metrics/vqa_accuracy")
@pytest.mark.parametrize("rules", ANSWER_RULES)
def test_answers_score_the_same_from_stored_shares_and_by_type(case: Any, rules: Rules) -> None:
    questions = [
        Question(
            id=str(row["question_id"]),
            question=row["question"],
            answers=weighted(answer["answer"] for answer in row["answers"]),
            question_type=row["question_type"],
            answer_type=row["answer_type"],
        )
        for row in case.json("annotations.json")["annotations"]
    ]
    for question, row in zip(questions, case.json("annotations.json")["annotations"], strict=True):
        assert sorted(human_answers(question)) == sorted(answer["answer"] for answer in row["answers"])
    said = {str(row["question_id"]): row["answer"] for row in case.json("predictions.json")}
    scores = vqa_scores(said, questions, rules=rules)
    expected = case.json("expected.json")[ANSWER_RULES[rules]]["accuracy"]
    assert scores.overall == pytest.approx(expected["overall"], abs=1e-4)
    assert scores.by_question_type == pytest.approx(expected["perQuestionType"], abs=1e-4)
    assert scores.by_answer_type == pytest.approx(expected["perAnswerType"], abs=1e-4)


@pytest.mark.golden("metrics/vqa_accuracy")
def test_answers_are_brought_into_the_published_form(case: Any) -> None:
    expected = case.json("expected.json")["normalised_prediction"]
    for row in case.json("predictions.json"):
        text = row["answer"].replace("\n", " ").replace("\t", " ").strip()
        assert normalise_answer(text) == expected[str(row["question_id"])], text


BOX_RULES: dict[Convention, str] = {"inclusive_pixels": "iou_inclusive_pixels", "continuous": "iou_continuous"}


@pytest.mark.golden("metrics/grounding_iou")
@pytest.mark.parametrize("convention", BOX_RULES)
def test_boxes_overlap_and_are_found_as_in_the_reference(case: Any, convention: Convention) -> None:
    rows, expected = case.json("boxes.json"), case.json("expected.json")
    overlaps = [intersection_over_union(row["pred_xywh"], row["gt_xywh"], convention=convention) for row in rows]
    wanted = {row["id"]: row[BOX_RULES[convention]] for row in expected["per_box"]}
    assert overlaps == pytest.approx([wanted[row["id"]] for row in rows], abs=1e-6)
    scores = found_by_split(zip((row["split"] for row in rows), overlaps, strict=True))
    assert scores == pytest.approx(expected["accuracy_at_0.5_percent"][BOX_RULES[convention]])
