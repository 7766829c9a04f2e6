"""Questions about pictures, answered in words and scored against ten annotators (VQA v2)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from model.examples import Example, Generate, Target
from shards.config import Config as BaseConfig
from shards.errors import ConfigError, DatasetError
from shards.reader import Dataset
from shards.records import Annotation, Question
from shards.stream import Item
from trainers.metrics.vqa_accuracy import human_answers, vqa_accuracy, vqa_scores
from trainers.pairing import annotation_of, concepts_of
from trainers.task import ImageView


class Config(BaseConfig):
    """How answers weigh in training, and which of them an evaluation chooses from."""

    kind: Literal["vqa"] = "vqa"
    dataset_weights: dict[str, PositiveFloat] = Field(default_factory=lambda: {"vg_qa": 0.5})
    """what the answers of a dataset are scaled by, under the name in its records; Visual Genome's count half, as published"""
    answers: str | None = None
    """a JSON list of the answers to choose from; unset: the commonest answers of the streams that were trained on"""
    answers_kept: PositiveInt = 3129
    """how many of the commonest answers are kept where there is no list; the published list has so many"""


class VqaTask:
    """Emits each question with its distinct answers, each weighing its share of the annotators."""

    emits: ClassVar[type[Example]] = Generate
    count: ClassVar[Literal["records", "annotations"]] = "annotations"
    asks: ClassVar[type[Annotation]] = Question
    pictures: ClassVar[int] = 1

    def __init__(self, config: Config) -> None:
        self.config = config

    def example(self, item: Item, view: ImageView, rng: np.random.Generator) -> Generate:
        found = annotation_of(item.record, item.annotation, Question)
        scale = self.config.dataset_weights.get(item.record.origin.dataset, 1.0)
        return Generate(
            key=item.name,
            images=(view(item.record, rng),),
            concepts=concepts_of(item),
            prompt=found.question,
            targets=tuple(Target(text=answer.text, weight=answer.weight * scale) for answer in found.answers),
        )

    def ask(self, text: str) -> Question:
        """A question that nobody has answered."""
        return Question(question=text)

    def candidates(self, datasets: Iterable[Dataset]) -> tuple[str, ...]:
        """The answers to choose from: of the list, or the commonest of some datasets, the most frequent first.

        Raises:
            ConfigError: the list cannot be read, or there is no answer at all.
        """
        if self.config.answers is not None:
            return _read_list(self.config.answers)
        counts: Counter[str] = Counter()
        for dataset in datasets:
            for record in dataset.records(payload=False):
                for question in record.annotations:
                    if isinstance(question, Question):
                        for answer in question.answers:
                            counts[answer.text] += answer.weight  # type: ignore[assignment]  # shares, not whole counts
        if not counts:
            raise ConfigError(
                "task.answers: the streams that were trained on hold no answer; give a JSON list of answers"
            )
        ordered = sorted(counts, key=lambda text: (-counts[text], text))
        return tuple(ordered[: self.config.answers_kept])

    def rightness(self, predicted: str, annotation: Annotation) -> float | None:
        """The accuracy of one answer, 0 to 1, by the rules of the public evaluation; `None` without published answers."""
        if not isinstance(annotation, Question) or not annotation.answers:
            return None
        return vqa_accuracy(predicted, _given(annotation))

    def scores(self, predicted: Sequence[str], annotations: Sequence[Annotation]) -> Mapping[str, float]:
        """Score answers by the rules of the public evaluation, of those questions whose answers are published.

        Beside it stand `constant`, what always saying the commonest answer would score, and `constant_by_type`, what saying
        the commonest of each question type would.

        Raises:
            DatasetError: the weights of a question's answers are no shares of annotators.
        """
        known = [
            # Numbered anew: a dataset need not have ids, and scores need none.
            (replace(each, id=str(number)), said)
            for number, (each, said) in enumerate(zip(annotations, predicted, strict=True))
            if isinstance(each, Question) and each.answers
        ]
        if not known:
            return {}
        questions = [question for question, _ in known]
        given = [_given(question) for question in questions]
        said = {str(question.id): answer for question, answer in known}
        metrics = vqa_scores(said, questions).as_metrics() | {"constant": _constant(given)}
        types: dict[str, list[Sequence[str]]] = {}
        for question, answers in zip(questions, given, strict=True):
            types.setdefault(question.question_type or "", []).append(answers)
        if len(types) > 1:
            own = [_constant(answers) * len(answers) for answers in types.values()]
            metrics["constant_by_type"] = sum(own) / len(given)
        return metrics

    def submission(self, predicted: Sequence[str], annotations: Sequence[Annotation]) -> str:
        """Write what VQA v2's evaluation server takes: a JSON list of {question_id, answer}, ids as numbers where they are.

        Raises:
            DatasetError: a question has no id, or an id comes twice.
        """
        ids = [each.id for each in annotations]
        repeated = [id for id, count in Counter(ids).items() if count > 1]
        if None in ids or repeated:
            wrong = (
                "a question has no id"
                if None in ids
                else f"question {repeated[0]} comes {ids.count(repeated[0])} times"
            )
            raise DatasetError(
                f"no submission can be made: {wrong}, and the server wants each id once; leave submission out"
            )
        rows = [
            {"question_id": int(id) if id is not None and id.isdecimal() else id, "answer": answer}
            for id, answer in zip(ids, predicted, strict=True)
        ]
        return json.dumps(rows, ensure_ascii=False) + "\n"


def build(config: Config) -> VqaTask:
    """Build the task."""
    return VqaTask(config)


def _given(question: Question) -> tuple[str, ...]:
    """One answer per annotator.

    Raises:
        DatasetError: the answers' weights are no shares of annotators.
    """
    try:
        return human_answers(question)
    except ValueError as error:
        raise DatasetError(f"these answers cannot be scored: {error}") from error


def _constant(given: Sequence[Sequence[str]]) -> float:
    """What always giving the commonest of these answers would score, in percent: what a reader who never looks could do."""
    commonest = Counter(answer for answers in given for answer in answers).most_common(1)[0][0]
    return 100 * sum(vqa_accuracy(commonest, answers) for answers in given) / len(given)


def _read_list(path: str) -> tuple[str, ...]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"task.answers={path!r} cannot be read ({error}); give a JSON list of answers") from error
    if not isinstance(found, list) or not found or not all(isinstance(answer, str) for answer in found):
        raise ConfigError(f"task.answers={path!r} is no list of texts; give a JSON list such as answer_list.json")
    return tuple(dict.fromkeys(found))
