"""What is said about a record, one line or little block for each kind of annotation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.report.markup import Markup, join, tag
from jobs.report.overlays import clipped
from jobs.report.pictures import annotation_text
from shards.records import Annotation, Answer, Entailment, ImageCode, Label, Question, Statement, Text

MOST_SAID = 8  # annotations of a record that are written out
MOST_ANSWERS = 5
MOST_CODES = 16
LONGEST = 600  # letters of one text


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How well an annotation fits its picture, as far as columns say."""

    similarity: float | None = None
    is_left_out: bool = False  # by a filter


def saying(annotation: Annotation, *, before: Annotation | None, fit: Fit = Fit()) -> Markup:
    """Write an annotation, the one after `before`; plain text stands out where it is the first, a premise is not said twice."""
    match annotation:
        case Question():
            return tag(
                "div", tag("p", _cut(annotation.question), class_="first"), _answers(annotation.answers), class_="asked"
            )
        case Entailment():
            known = before.premise if isinstance(before, Entailment) else None
            news = annotation.premise if annotation.premise != known else None
            premise = tag("p", tag("b", "premise"), " ", _cut(news)) if news else None
            verdict = None if annotation.label is None else join([_verdict(annotation.label), " "])
            return join([premise, tag("p", verdict, _cut(annotation.hypothesis), class_="first")])
        case Statement():
            truth = None if annotation.label is None else "true" if annotation.label else "false"
            return tag(
                "p", _verdict(truth) if truth else None, " " if truth else None, _cut(annotation.text), class_="first"
            )
        case Label():
            number = tag("span", f" class {annotation.index}", class_="quiet") if annotation.index is not None else None
            return tag("p", _cut(annotation.name), number, class_="first")
        case Text():
            target = tag("p", tag("b", "→"), " ", _cut(annotation.target)) if annotation.target is not None else None
            return join([tag("p", _cut(annotation.source), class_="first"), target])
        case ImageCode():
            codes = " ".join(map(str, annotation.codes[:MOST_CODES]))
            rest = " …" if len(annotation.codes) > MOST_CODES else ""
            text = tag("p", _cut(annotation.text), class_="first") if annotation.text else None
            return join([text, tag("p", f"{len(annotation.codes):,} image codes: ", tag("code", codes + rest))])
    classes = " ".join(["first"] * (before is None) + ["left-out"] * fit.is_left_out)
    return tag("p", _cut(annotation_text(annotation)), *_fit(fit), class_=classes or None)


def say_rest(count: int, annotations: Sequence[Annotation]) -> list[Markup]:
    """The line that says how many annotations are not written out; empty where all are."""
    if count <= 0:
        return []
    return [tag("p", f"… and {count:,} more, {len(annotations):,} annotations in all", class_="quiet")]


def _fit(fit: Fit) -> list[Markup | str]:
    said: list[Markup | str] = []
    if fit.similarity is not None:
        said += [
            " ",
            tag("span", f"{fit.similarity:.2f}", class_="fit", title="cosine of the caption with its picture"),
        ]
    if fit.is_left_out:
        said += [" ", tag("span", "left out", class_="verdict open")]
    return said


def _answers(answers: Sequence[Answer]) -> Markup:
    if not answers:
        return tag("p", "without answers", class_="quiet")
    most = max(answer.weight for answer in answers) or 1.0
    bars = [
        tag(
            "li",
            tag("span", clipped(answer.text, 120)),
            tag("span", f"{answer.weight:.2g}", class_="score"),
            style=f"--share:{100 * max(0.0, answer.weight) / most:.0f}%",
        )
        for answer in answers[:MOST_ANSWERS]
    ]
    rest = (
        tag("li", f"… and {len(answers) - MOST_ANSWERS} more", class_="more") if len(answers) > MOST_ANSWERS else None
    )
    return tag("ul", *bars, rest, class_="answers", aria_label="Answers with their weights")


def _verdict(label: str) -> Markup:
    """A label in a word of its own; those that every dataset knows have a colour."""
    tone = {"true": "yes", "entailment": "yes", "false": "no", "contradiction": "no"}.get(label.lower(), "open")
    return tag("span", clipped(label, 40), class_=f"verdict {tone}")


def _cut(text: str) -> str:
    return clipped(text, LONGEST)
