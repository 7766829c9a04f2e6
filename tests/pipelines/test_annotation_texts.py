"""Every annotation type has its texts changed, and none is forgotten."""

from __future__ import annotations

import typing

import pytest

from pipelines.annotation_texts import leading_text, with_texts
from shards.records import (
    Annotation,
    Answer,
    Caption,
    Detection,
    Entailment,
    Grounding,
    ImageCode,
    Label,
    Question,
    Statement,
    Text,
)

BOX = (0.0, 0.0, 1.0, 1.0)
ONE_OF_EACH: list[Annotation] = [
    Caption(text="a"),
    Question(question="a", answers=(Answer(text="b"),)),
    Grounding(text="a", box=BOX),
    Detection(label="a", box=BOX),
    Entailment(hypothesis="a", premise="b", label="neutral"),
    Statement(text="a", label=True),
    Label(name="a", index=3),
    Text(source="a", target="b"),
    ImageCode(codes=(1, 2), text="a"),
]


def test_the_list_above_has_every_type() -> None:
    assert {type(annotation) for annotation in ONE_OF_EACH} == set(typing.get_args(Annotation))


@pytest.mark.parametrize("annotation", ONE_OF_EACH, ids=lambda annotation: annotation.type)
def test_the_leading_text_is_found_and_changed(annotation: Annotation) -> None:
    assert leading_text(annotation) == "a"
    changed = with_texts(annotation, str.upper)
    assert changed is not None
    assert leading_text(changed) == "A"
    assert with_texts(changed, str.lower) == annotation


@pytest.mark.parametrize("annotation", ONE_OF_EACH[:-1], ids=lambda annotation: annotation.type)
def test_an_annotation_without_its_text_is_none(annotation: Annotation) -> None:
    assert with_texts(annotation, lambda text: "" if text == "a" else text) is None


def test_image_codes_can_do_without_a_text() -> None:
    assert with_texts(ImageCode(codes=(1,), text="a"), lambda text: "") == ImageCode(codes=(1,))


def test_answers_that_become_equal_weigh_together_and_empty_ones_go() -> None:
    answers = (Answer(text="Red", weight=0.5), Answer(text=" ", weight=0.2), Answer(text="red", weight=0.3))
    changed = with_texts(Question(question="Q", answers=answers), lambda text: text.strip().lower())
    assert changed == Question(question="q", answers=(Answer(text="red", weight=0.8),))


def test_a_question_whose_answers_all_go_is_none_but_one_of_a_test_split_stays() -> None:
    assert with_texts(Question(question="q", answers=(Answer(text=" "),)), str.strip) is None
    assert with_texts(Question(question="q"), str.strip) == Question(question="q")
