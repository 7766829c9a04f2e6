"""Accuracy of open answers against ten annotators (VQA v2, Goyal et al., 2017), by the rules of its public evaluation.

Two versions of the rules are in use and differ by points, so both are here by name: `official` is the public evaluation
code of VQA v2; `older` is the copy that several vision-language repositories carry, which normalises the prediction even
where the annotators all agree, and never brings the annotators' numbers and articles into the same form.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from shards.records import Question

Rules = Literal["official", "older"]

ANNOTATORS = 10
AGREEING = 3  # so many other annotators with the same answer make it fully right

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WITH_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
FULL_STOPS = 32  # the reference passes a flag of this value where the count belongs, so it removes no more of them

_ARTICLES = frozenset({"a", "an", "the"})
_DIGITS = {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}

# What the evaluation repairs when exactly one apostrophe is lost. It leaves alone "lets", "shed", "wed", "id" and their
# like, which are words of their own, and it never meets the capital I of "I'm", since words are in lower case by then.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
    someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
    where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
    y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# One entry of the evaluation's goes the other way: a contraction that is right loses its apostrophe.
_REPAIRS = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTIONS.split()
    for place, sign in enumerate(word)
    if sign == "'"
} | {"somebody'd": "somebodyd"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VqaScores:
    """Accuracy in percent, over all questions and by the dataset's own sorting of them."""

    overall: float
    by_question_type: Mapping[str, float]
    by_answer_type: Mapping[str, float]

    def as_metrics(self) -> dict[str, float]:
        """Name every number as scores.json does."""
        named = {"vqa_accuracy": self.overall}
        named |= {f"vqa_accuracy/answer_type/{name}": value for name, value in self.by_answer_type.items()}
        return named | {f"vqa_accuracy/question_type/{name}": value for name, value in self.by_question_type.items()}


def vqa_accuracy(prediction: str, answers: Sequence[str], *, rules: Rules = "official") -> float:
    """Score one answer: the mean, over annotators left out in turn, of min(1, how many others gave it / 3).

    Args:
        prediction: as the model says it.
        answers: one per annotator, as they wrote them.
        rules: which version of the evaluation.

    Returns:
        Between 0 and 1.

    Raises:
        ValueError: there is no answer to compare with.
    """
    if not answers:
        raise ValueError("a question without any answer cannot be scored; evaluate on a split that has answers")
    said, given = _tidy(prediction), [_tidy(answer) for answer in answers]
    disagree = len(set(given)) > 1
    if rules == "official":
        said = normalise_answer(said) if disagree else said
        given = [normalise_answer(answer) for answer in given] if disagree else given
    else:
        said = normalise_answer(said)
        given = [_without_punctuation(answer) for answer in given] if disagree else given
    same = given.count(said)
    # Leaving out one who said the same leaves one fewer; both kinds of turn are the same sum each time.
    turns = same * min(1.0, (same - 1) / AGREEING) + (len(given) - same) * min(1.0, same / AGREEING)
    return turns / len(given)


def vqa_scores(
    predictions: Mapping[str, str], questions: Iterable[Question], *, rules: Rules = "official"
) -> VqaScores:
    """Score answers by question id.

    Args:
        predictions: question id to answer.
        questions: with their annotators' answers; every one needs a prediction.
        rules: which version of the evaluation.

    Raises:
        ValueError: no questions, or one without id, prediction or answers.
    """
    overall: list[float] = []
    by_question: defaultdict[str, list[float]] = defaultdict(list)
    by_answer: defaultdict[str, list[float]] = defaultdict(list)
    for question in questions:
        if question.id is None or question.id not in predictions:
            raise ValueError(f"question {question.id!r} has no prediction; predict every question that is evaluated")
        value = 100 * vqa_accuracy(predictions[question.id], human_answers(question), rules=rules)
        overall.append(value)
        if question.question_type is not None:
            by_question[question.question_type].append(value)
        if question.answer_type is not None:
            by_answer[question.answer_type].append(value)
    if not overall:
        raise ValueError("no question to score; check the split")
    return VqaScores(
        overall=_mean(overall),
        by_question_type={name: _mean(values) for name, values in by_question.items()},
        by_answer_type={name: _mean(values) for name, values in by_answer.items()},
    )


def human_answers(question: Question) -> tuple[str, ...]:
    """Undo the shares that a stored question holds: one answer per annotator, the most frequent first.

    The number of annotators is ten, or the nearest lower number of which all shares are whole.

    Raises:
        ValueError: no number up to ten gives whole counts: the weights are no shares of annotators.
    """
    for annotators in range(ANNOTATORS, 0, -1):
        counts = [answer.weight * annotators for answer in question.answers]
        if (
            all(abs(count - round(count)) < 1e-6 and count > 0.5 for count in counts)
            and round(sum(counts)) == annotators
        ):
            return tuple(
                answer.text for answer, count in zip(question.answers, counts, strict=True) for _ in range(round(count))
            )
    raise ValueError(
        f"question {question.id!r}: weights {[answer.weight for answer in question.answers]} are no shares of up to "
        f"{ANNOTATORS} annotators; score this dataset with another metric"
    )


def normalise_answer(text: str) -> str:
    """Bring an answer into the evaluation's form: punctuation, then case, numbers, articles and contractions."""
    words = _without_punctuation(text).lower().split()
    kept = (_DIGITS.get(word, word) for word in words)
    return " ".join(_REPAIRS.get(word, word) for word in kept if word not in _ARTICLES)


def _without_punctuation(text: str) -> str:
    # Where a sign stands beside a space anywhere, or the text holds a number like 1,000, the sign goes; else it parts
    # words. Both are asked of the text as it was, whatever has been replaced by then.
    tight = _NUMBER_WITH_COMMA.search(text) is not None
    cleaned = text
    for sign in _PUNCTUATION:
        beside_space = f"{sign} " in text or f" {sign}" in text
        cleaned = cleaned.replace(sign, "" if tight or beside_space else " ")
    return _FULL_STOP.sub("", cleaned, count=FULL_STOPS)


def _tidy(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
