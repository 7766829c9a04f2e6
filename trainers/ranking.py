"""Going through an exam by ranking candidates for each example: answers to questions, classes, true or false."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model.family import Rank
from shards.errors import ConfigError
from shards.reader import Dataset, open_dataset
from shards.records import Annotation, Entailment, Question, Statement
from trainers.assembly import TrainedRun
from trainers.augment import EvalView
from trainers.config import AskConfig
from trainers.exam import Crew, Exam, Remembering, mixed_precision
from trainers.gather import gather_rows
from trainers.task import RankedTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """The best candidates of N examples, best first, on the CPU."""

    places: Tensor  # (N, k) numbers of candidates
    scores: Tensor  # (N, k) their probabilities among the candidates that were compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What there is to choose from, and the request that asks a family to."""

    candidates: tuple[str, ...]
    request: Rank


def choice_of(config: AskConfig, run: TrainedRun, task: RankedTask) -> Choice:
    """Take the task's candidates, and prepare the request for them.

    Raises:
        ConfigError: the family answers no such task, `k_test` keeps nothing, or there is nothing to choose from.
    """
    if task.emits not in run.family.serves:
        raise ConfigError(
            f"checkpoint={config.checkpoint!r} is a {run.config.family['kind']!r} model without the head for this task; "
            "name a run that was trained for it"
        )
    if config.k_test < 1:
        raise ConfigError("k_test=0 keeps no candidate to be ranked; give at least 1")
    candidates = task.candidates(_trained_on(run))
    wanted = Rank(candidates=candidates, keep=min(config.k_test, len(candidates)))
    return Choice(candidates=candidates, request=run.processor.request(wanted))


@torch.no_grad()
def rank_examples(
    run: TrainedRun, exam: Exam, choice: Choice, chosen: range, *, config: AskConfig, crew: Crew, named: int
) -> Ranked:
    """Rank for some examples of an exam, each rank its share; every rank gets the best `named` candidates of each.

    Raises:
        DamagedRecordError: a picture cannot be read; it stops every rank, with its name.
    """
    places, scores = [], []
    view = Remembering(EvalView(run.processor.view.image_size))
    own = crew.share(chosen, size=config.batch_size)
    crew.say("rank", chosen.start, len(exam))
    with crew.group.together(), mixed_precision(config, crew.group.device):
        for part in own:
            examples = exam.examples(part, view)
            batch = run.processor(examples, [0] * len(examples), train=False).to(crew.group.device)
            found = run.family.predict(batch, choice.request)
            # Copies, since a slice would hold on to all that were ranked: 0.7 GB over the test questions of VQA v2.
            places.append(found.places[:, :named].clone())
            scores.append(found.scores[:, :named].float().clone())
            crew.say("rank", part.stop, len(exam))
    numbers = [number - chosen.start for part in own for number in part]
    return Ranked(
        places=gather_rows(crew.group, places, numbers, total=len(chosen)).cpu(),
        scores=gather_rows(crew.group, scores, numbers, total=len(chosen)).cpu(),
    )


def ranking_rows(exam: Exam, candidates: Sequence[str], chosen: range, found: Ranked) -> Iterator[dict[str, Any]]:
    """Describe what was ranked: `key`, `annotation`, `id`, `text`, `predicted`, and `ranked` of {text, score}, best first."""
    rows = zip(chosen, found.places.tolist(), found.scores.tolist(), strict=True)
    for example, numbers, values in rows:
        place = exam.places[example]
        yield {
            "key": place.key,
            "annotation": place.number,
            "id": place.annotation.id,
            "text": asked_text(place.annotation),
            "predicted": candidates[numbers[0]],
            "ranked": [
                {"text": candidates[number], "score": round(value, 5)}
                for number, value in zip(numbers, values, strict=True)
            ],
        }


def asked_text(annotation: Annotation) -> str:
    """What an annotation asks."""
    match annotation:
        case Question():
            return annotation.question
        case Entailment():
            return annotation.hypothesis
        case Statement():
            return annotation.text
    raise TypeError(f"annotations of type {annotation.type!r} ask nothing that candidates could answer")


def _trained_on(run: TrainedRun) -> Iterable[Dataset]:
    """Open the run's datasets, one at a time and only when asked."""
    for stream in run.config.streams.values():
        yield open_dataset(stream.dataset, annotations=stream.annotations, cache=run.config.cache)
