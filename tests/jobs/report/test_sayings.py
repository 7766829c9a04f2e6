"""What is said about a record, in words: answers with their weights, premises once, labels as labels."""

from __future__ import annotations

import re

from jobs.report.markup import Markup
from jobs.report.sayings import MOST_ANSWERS, MOST_CODES, saying
from shards.records import Annotation, Answer, Entailment, ImageCode, Label, Question, Statement, Text


def words(markup: Markup) -> str:
    return " ".join(re.sub("<[^>]+>", " ", markup).split())


def test_answers_are_bars_as_long_as_their_weight() -> None:
    said = saying(
        Question(question="Who?", answers=(Answer(text="dog", weight=0.8), Answer(text="cat", weight=0.2))), before=None
    )
    assert words(said) == "Who? dog 0.8 cat 0.2"
    assert re.findall(r"--share:(\d+)%", said) == ["100", "25"]


def test_more_answers_than_can_be_read_are_counted_and_none_is_said_to_be_none() -> None:
    answers = tuple(Answer(text=f"answer {n}", weight=0.1) for n in range(MOST_ANSWERS + 3))
    assert "… and 3 more" in words(saying(Question(question="Who?", answers=answers), before=None))
    assert words(saying(Question(question="Who?"), before=None)) == "Who? without answers"


def test_a_premise_is_said_once_for_all_its_hypotheses() -> None:
    first = Entailment(premise="It rains.", hypothesis="It is wet.", label="entailment")
    second = Entailment(premise="It rains.", hypothesis="It is dry.", label="contradiction")
    assert words(saying(first, before=None)) == "premise It rains. entailment It is wet."
    assert words(saying(second, before=first)) == "contradiction It is dry."


def test_every_other_kind_says_all_that_it_holds() -> None:
    said: dict[str, Annotation] = {
        "true Two dogs.": Statement(text="Two dogs.", label=True),
        "Two dogs.": Statement(text="Two dogs."),
        "tench class 0": Label(name="tench", index=0),
        "long text → short": Text(source="long text", target="short"),
        "a dog 2 image codes: 7 8": ImageCode(codes=(7, 8), text="a dog"),
    }
    for text, annotation in said.items():
        assert words(saying(annotation, before=None)) == text
    many = saying(ImageCode(codes=tuple(range(1000, 2000))), before=None)
    assert words(many).endswith(f"{1000 + MOST_CODES - 1} …")
