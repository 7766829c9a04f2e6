"""Answers in the evaluation's form, and what annotators that disagree are worth."""

from __future__ import annotations

import pytest

from shards.records import Answer, Question
from trainers.metrics.vqa_accuracy import human_answers, normalise_answer, vqa_accuracy, vqa_scores

MIXED = ("red",) * 3 + ("blue",) * 2 + ("green",) * 5


@pytest.mark.parametrize(("said", "worth"), [("green", 1.0), ("red", 0.9), ("blue", 0.6), ("black", 0.0)])
def test_each_annotator_is_left_out_in_turn(said: str, worth: float) -> None:
    assert vqa_accuracy(said, MIXED) == pytest.approx(worth)


def test_where_all_annotators_agree_only_the_older_rules_forgive_a_full_stop() -> None:
    answers = ("yes",) * 10
    assert vqa_accuracy("yes.", answers) == 0
    assert vqa_accuracy("yes.", answers, rules="older") == 1


def test_only_the_official_rules_bring_the_annotators_words_into_form() -> None:
    answers = ("two",) * 9 + ("3",)
    assert vqa_accuracy("2", answers) == 1
    assert vqa_accuracy("2", answers, rules="older") == 0


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("A red Hat!", "red hat"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),
        ("couldn'tve", "couldn't've"),
        ("lets go", "lets go"),
        ("hot-dog", "hot dog"),
        ("hot- dog", "hot dog"),
        ("man/woman", "man woman"),
        ("1,000", "1000"),
        ("3.50", "3.50"),
        ("a.m.", "am"),
    ],
)
def test_an_answer_takes_the_evaluations_form(text: str, form: str) -> None:
    assert normalise_answer(text) == form


def test_full_stops_beyond_the_references_count_stay() -> None:
    assert normalise_answer("." * 40) == "." * 8


def test_shares_become_ten_answers_again_and_fewer_where_an_annotator_gave_none() -> None:
    tenths = (Answer(text="red", weight=0.7), Answer(text="blue", weight=0.3))
    assert human_answers(Question(id="1", question="?", answers=tenths)) == ("red",) * 7 + ("blue",) * 3
    ninths = (Answer(text="red", weight=7 / 9), Answer(text="blue", weight=2 / 9))
    assert human_answers(Question(id="1", question="?", answers=ninths)) == ("red",) * 7 + ("blue",) * 2


def test_weights_that_are_no_shares_are_refused_by_question() -> None:
    question = Question(id="q7", question="?", answers=(Answer(text="on", weight=0.5),))
    with pytest.raises(ValueError, match="'q7'"):
        human_answers(question)


def test_a_question_without_prediction_is_named() -> None:
    question = Question(id="q7", question="?", answers=(Answer(text="on", weight=1.0),))
    with pytest.raises(ValueError, match="'q7' has no prediction"):
        vqa_scores({}, [question])


def test_scores_are_sorted_as_the_dataset_sorts_its_questions() -> None:
    sure = (Answer(text="on", weight=1.0),)
    questions = [
        Question(id="1", question="?", answers=sure, question_type="is it", answer_type="yes/no"),
        Question(id="2", question="?", answers=sure, question_type="is it", answer_type="other"),
    ]
    scores = vqa_scores({"1": "on", "2": "off"}, questions)
    assert (scores.overall, dict(scores.by_question_type)) == (50, {"is it": 50})
    assert scores.as_metrics()["vqa_accuracy/answer_type/yes/no"] == 100
