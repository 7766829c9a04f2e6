"""What question sources share: the answers of several annotators as weighted answers, and pictures that collect their questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.drafts import Draft, usable_text
from pipelines.raw_text import id_text, printable
from shards.media import MediaProblem
from shards.records import Answer, Question


def weighted(texts: Iterable[str]) -> tuple[Answer, ...]:
    """The distinct answers of several annotators, the most frequent first.

    The weight is an answer's share of the annotators, from which every published rule can be computed again: ViCHA trains with
    the share itself, VQA's soft accuracy counts `min(1, share * annotators / 3)`, OFA's confidence is that soft score.
    """
    counts = Counter(texts)
    total = sum(counts.values())
    return tuple(Answer(text=text, weight=count / total) for text, count in counts.most_common())


def annotators_answers(raw: Any, *, where: str) -> tuple[Answer, ...]:
    """Answers as datasets list them: texts, or objects with `answer`; empty ones of single annotators are left out.

    Raises:
        MediaProblem: it is no list, or no usable answer is in it; becomes a reject of the question.
    """
    if not isinstance(raw, list):
        raise MediaProblem("missing_field", f"{where} has no list of answers")
    texts: list[str] = []
    last: MediaProblem | None = None
    for place, entry in enumerate(raw):
        text = entry.get("answer") if isinstance(entry, dict) else entry
        try:
            texts.append(usable_text(text, what="answer", where=f"{where} answers[{place}]"))
        except MediaProblem as problem:
            last = problem
    if not texts:
        raise last or MediaProblem("missing_field", f"{where} has an empty list of answers")
    return weighted(texts)


class QuestionIds:
    """Sees to it that a question id is taken once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, raw: Any, *, where: str) -> str:
        """The id of a question as text. Raises `MediaProblem` where there is none or an earlier question had it."""
        id = id_text(raw)
        if id is None:
            raise MediaProblem("missing_field", f"{where} has no question id")
        if id in self._taken:
            raise MediaProblem("duplicate_id", f"{where} repeats the id of an earlier question")
        self._taken.add(id)
        return id


def ask(
    draft: Draft,
    text: Any,
    *,
    id: str,
    answers: Sequence[Answer],
    where: str,
    question_type: Any = None,
    answer_type: Any = None,
) -> None:
    """Add a question to its picture. Raises `MediaProblem` for an unusable text; call it inside `draft.refusing`."""
    draft.annotations.append(
        Question(
            id=id,
            question=usable_text(text, what="question", where=where),
            answers=tuple(answers),
            question_type=_name(question_type),
            answer_type=_name(answer_type),
        )
    )


def _name(raw: Any) -> str | None:
    return printable(raw) if isinstance(raw, str) and raw else None
