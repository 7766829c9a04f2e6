"""The tasks over questions, hypotheses and statements: what an example holds, what is chosen from, and how it is scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.examples import Classify, Compare, Generate
from shards.address import Address
from shards.errors import ConfigError, DatasetError
from shards.records import Annotation, Answer, Caption, Entailment, Origin, Question, Record, Statement
from shards.stream import Item
from trainers.tasks import load_task

RNG = np.random.default_rng(0)


def _view(record: Record, rng: np.random.Generator, *, position: int = 0) -> torch.Tensor:
    return torch.full((3, 4, 4), position, dtype=torch.uint8)


def _item(annotation: Annotation, *, dataset: str = "d", sidecar: dict[str, Any] | None = None) -> Item:
    record = Record(key="r-1", origin=Origin(dataset=dataset, split="s", id="1"), media=(), annotations=(annotation,))
    address = Address(source="d", shard=0, item=0, epoch=0, position=0)
    return Item(address=address, record=record, annotation=0, sidecars={"concepts": sidecar} if sidecar else {})


QUESTION = Question(
    id="7", question="What is it?", answers=(Answer(text="cat", weight=0.7), Answer(text="dog", weight=0.3))
)


def test_a_question_brings_its_answers_with_their_shares_and_visual_genomes_count_half() -> None:
    task = load_task({"kind": "vqa"})
    example = task.example(_item(QUESTION), _view, RNG)  # type: ignore[arg-type]
    assert isinstance(example, Generate)
    assert (example.key, example.prompt) == ("r-1#0", "What is it?")
    assert [(target.text, target.weight) for target in example.targets] == [("cat", 0.7), ("dog", 0.3)]
    genome = task.example(_item(QUESTION, dataset="vg_qa"), _view, RNG)  # type: ignore[arg-type]
    assert isinstance(genome, Generate)
    assert [target.weight for target in genome.targets] == [0.35, 0.15]


def test_answers_to_choose_from_are_listed_or_the_commonest_of_the_training_data(tmp_path: Path) -> None:
    class Told:
        def records(self, *, payload: bool) -> list[Record]:
            questions = [QUESTION, Question(question="And that?", answers=(Answer(text="dog", weight=1.0),))]
            return [_item(question).record for question in questions]

    task: Any = load_task({"kind": "vqa", "answers_kept": 1})
    assert task.candidates([Told()]) == ("dog",)
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(["b", "a", "b"]))
    chosen: Any = load_task({"kind": "vqa", "answers": str(listed)})
    assert chosen.candidates([]) == ("b", "a")
    listed.write_text('{"a": 1}')
    with pytest.raises(ConfigError, match="is no list of texts"):
        chosen.candidates([])
    with pytest.raises(ConfigError, match="hold no answer"):
        task.candidates([])


def test_answers_are_scored_beside_the_commonest_one_and_handed_in_by_question() -> None:
    task: Any = load_task({"kind": "vqa"})
    agreed = Question(id="8", question="And that?", answers=(Answer(text="dog", weight=1.0),))
    scores = task.scores(["cat", "cat"], [QUESTION, agreed])
    assert scores["vqa_accuracy"] == pytest.approx(50.0)
    assert scores["constant"] == pytest.approx((100 + 90) / 2)  # of three alike, each time one is left out two remain
    assert task.scores(["cat"], [Question(id="9", question="Untold?")]) == {}
    assert task.rightness("cat", QUESTION) == pytest.approx(1.0)
    assert task.rightness("cat", Question(id="9", question="Untold?")) is None
    assert json.loads(task.submission(["cat"], [QUESTION])) == [{"question_id": 7, "answer": "cat"}]


def test_kinds_of_question_have_guesses_of_their_own() -> None:
    task: Any = load_task({"kind": "vqa"})
    asked = [
        Question(id=None, question="?", question_type=kind, answers=(Answer(text=text, weight=1.0),))
        for kind, text in (("is", "yes"), ("is", "yes"), ("what", "cat"), ("what", "cat"), ("what", "dog"))
    ]
    scores = task.scores(["yes"] * 5, asked)
    assert scores["constant"] == pytest.approx(40)
    assert scores["constant_by_type"] == pytest.approx(80)


def test_ids_that_a_server_would_refuse_and_weights_that_are_no_shares_are_told() -> None:
    task: Any = load_task({"kind": "vqa"})
    with pytest.raises(DatasetError, match="a question has no id"):
        task.submission(["cat"], [Question(question="?")])
    with pytest.raises(DatasetError, match="question 7 comes 2 times"):
        task.submission(["cat", "dog"], [QUESTION, QUESTION])
    odd = Question(id="1", question="?", answers=(Answer(text="cat", weight=0.123),))
    with pytest.raises(DatasetError, match="cannot be scored"):
        task.scores(["cat"], [odd])


@pytest.mark.parametrize(
    ("kind", "told", "untold"),
    [
        ("entailment", Entailment(hypothesis="A.", label="neutral"), Entailment(hypothesis="A.")),
        ("statement", Statement(text="A.", label=True), Statement(text="A.")),
    ],
)
def test_what_nobody_judged_is_shown_without_a_label_and_never_scored(
    kind: str, told: Annotation, untold: Annotation
) -> None:
    task: Any = load_task({"kind": kind})
    assert task.example(_item(untold), _view, RNG).label is None
    assert task.ask("A.") == untold
    right = "neutral" if kind == "entailment" else "True"
    assert task.scores([right, right], [told, untold])["accuracy"] == 100
    assert task.rightness(right, told) == 1
    assert task.rightness(right, untold) is None


def test_a_hypothesis_has_the_number_of_its_class() -> None:
    task: Any = load_task({"kind": "entailment"})
    example = task.example(_item(Entailment(hypothesis="A cat.", label="entailment")), _view, RNG)
    assert isinstance(example, Classify)
    assert example.classes[example.label or 0] == "entailment"
    with pytest.raises(DatasetError, match=r"record 'r-1': label 'maybe' is none of .*; set task\.classes"):
        task.example(_item(Entailment(hypothesis="A cat.", label="maybe")), _view, RNG)


def test_a_statement_brings_both_pictures_with_their_own_concepts() -> None:
    task: Any = load_task({"kind": "statement"})
    sidecar = {"phrases": ["cat"], "second_phrases": ["dog"]}
    example = task.example(_item(Statement(text="Both.", label=True), sidecar=sidecar), _view, RNG)
    assert isinstance(example, Compare)
    assert [int(image.max()) for image in example.images] == [0, 1]
    assert (example.concepts, example.second_concepts, example.label) == (("cat",), ("dog",), True)
    assert task.scores(["True"], [Statement(text="Both.", label=False)])["accuracy"] == 0
    assert task.scores(["True"], [Statement(text="Both.")]) == {}


@pytest.mark.parametrize(
    ("kind", "needs"), [("vqa", "questions"), ("entailment", "entailments"), ("statement", "statements")]
)
def test_records_of_another_kind_are_an_error_that_names_both(kind: str, needs: str) -> None:
    with pytest.raises(DatasetError, match=f"annotations of type 'caption', this task needs {needs}"):
        load_task({"kind": kind}).example(_item(Caption(text="a cat")), _view, RNG)  # type: ignore[arg-type]
