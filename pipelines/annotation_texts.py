"""The texts of an annotation, whatever its type: what transforms clean, count and filter by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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


def leading_text(annotation: Annotation) -> str | None:
    """The text that a person would call the annotation's: its caption, question, phrase, hypothesis, sentence or name.

    None for image codes without a text.
    """
    match annotation:
        case Caption(text=text) | Grounding(text=text) | Statement(text=text):
            return text
        case Question(question=text) | Entailment(hypothesis=text) | Detection(label=text) | Label(name=text):
            return text
        case Text(source=text):
            return text
        case ImageCode(text=text_or_none):
            return text_or_none
    raise TypeError(f"{type(annotation).__name__} is no annotation")


def with_texts(annotation: Annotation, change: Callable[[str], str]) -> Annotation | None:
    """The annotation with every text of it changed; None where a text that it cannot do without is left empty.

    It can do without a premise, a target, the text of image codes, and single answers of several; the labels of an entailment
    belong to a fixed list and stay as they are.
    """
    changed: Annotation
    match annotation:
        case Caption() | Grounding() | Statement():
            changed = replace(annotation, text=change(annotation.text))
        case Question():
            answers = tuple(replace(answer, text=change(answer.text)) for answer in annotation.answers)
            kept = _merged(answers)
            if answers and not kept:
                return None
            changed = replace(annotation, question=change(annotation.question), answers=kept)
        case Detection():
            changed = replace(annotation, label=change(annotation.label))
        case Entailment():
            premise = None if annotation.premise is None else change(annotation.premise) or None
            changed = replace(annotation, hypothesis=change(annotation.hypothesis), premise=premise)
        case Label():
            changed = replace(annotation, name=change(annotation.name))
        case Text():
            target = None if annotation.target is None else change(annotation.target) or None
            changed = replace(annotation, source=change(annotation.source), target=target)
        case ImageCode():
            return replace(annotation, text=None if annotation.text is None else change(annotation.text) or None)
        case _:
            raise TypeError(f"{type(annotation).__name__} is no annotation")
    return changed if leading_text(changed) else None


def _merged(answers: tuple[Answer, ...]) -> tuple[Answer, ...]:
    """Without empty answers; those that became equal weigh together, at the place of the first."""
    weights: dict[str, float] = {}
    for answer in answers:
        if answer.text:
            weights[answer.text] = weights.get(answer.text, 0.0) + answer.weight
    return tuple(Answer(text=text, weight=weight) for text, weight in weights.items())
