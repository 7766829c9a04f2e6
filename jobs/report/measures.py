"""What is counted and measured over a sample of a dataset's records, read from their headers alone."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from jobs.report.histograms import draw_histogram, draw_ranking, plain
from jobs.report.markup import Markup, tag
from jobs.report.overlays import clipped
from jobs.report.pictures import sample_rows
from shards.errors import DatasetError
from shards.reader import Dataset
from shards.records import (
    Annotation,
    Caption,
    Detection,
    Entailment,
    Grounding,
    ImageCode,
    Label,
    Media,
    Question,
    Record,
    Statement,
    Text,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Numbers by (title, unit) and words by title, in the order in which a page shows them."""

    records: int
    numbers: Mapping[tuple[str, str], tuple[float, ...]]
    words: Mapping[str, Mapping[str, int]]


def measure(records: Iterable[Record]) -> Measures:
    """Measure records; what none of them has is left out."""
    numbers: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    words: defaultdict[str, Counter[str]] = defaultdict(Counter)
    count = 0
    for record in records:
        count += 1
        for media in record.media:
            for title, unit, value in _of_media(media):
                numbers[title, unit].append(value)
            words["Formats"][media.member.rpartition(".")[2]] += 1
            if media.sample_rate is not None:
                words["Sample rates"][f"{media.sample_rate:,} Hz"] += 1
        numbers["Annotations per record", ""].append(len(record.annotations))
        for annotation in record.annotations:
            for title, unit, value in _of_annotation(annotation, record.media):
                numbers[title, unit].append(value)
            for title, word in _words(annotation):
                words[title][word] += 1
    finite = {
        place: tuple(kept) for place, values in numbers.items() if (kept := [v for v in values if math.isfinite(v)])
    }
    return Measures(records=count, numbers=finite, words=dict(words))


def sampled_headers(dataset: Dataset, count: int) -> Iterator[Record]:
    """The headers of records spread evenly over a dataset; what is damaged or missing is left out, because `verify` names it."""
    for shard, row in sample_rows(dataset, count):
        try:
            yield dataset.record(shard, row, payload=False)
        except DatasetError:
            continue


def measures_section(dataset: Dataset, *, sample: int) -> Markup | None:
    """Histograms of a dataset; None where none of its records can be read."""
    measures = measure(sampled_headers(dataset, sample))
    if not measures.records:
        return None
    charts, same = [], []
    for (title, unit), values in measures.numbers.items():
        if min(values) == max(values):
            same.append(f"{title.lower()}: {plain(values[0])}{f' {unit}' if unit else ''}")
        else:
            charts.append(draw_histogram(title, values, unit=unit))
    for title, counts in measures.words.items():
        if len(counts) == 1:
            same.append(f"{title.lower()}: {clipped(next(iter(counts)), 60)}")
        else:
            charts.append(draw_ranking(title, counts))
    whole = measures.records == len(dataset)
    told = "all" if whole else f"{measures.records:,} of the {len(dataset):,}"
    return tag(
        "section",
        tag("h2", f"Measures of {dataset.card.name} · {dataset.card.split}"),
        tag(
            "p",
            f"Over {told} records{'' if whole else ', spread evenly'}. "
            "A last bar marked + holds everything beyond it, too.",
            class_="lead",
        ),
        tag("p", f"The same everywhere: {'; '.join(same)}.") if same else None,
        tag("div", *charts, class_="curves") if charts else None,
        class_="follows",
    )


def _of_media(media: Media) -> Iterator[tuple[str, str, float]]:
    kind = {"image": "Picture", "video": "Clip", "audio": "Sound", "regions": "Regions"}[media.kind]
    if media.width and media.height:
        yield f"{kind} width", "px", media.width
        yield f"{kind} height", "px", media.height
        yield "Width by height", "", media.width / media.height
    if media.duration_s is not None:
        yield f"{kind} duration", "s", media.duration_s
    if media.fps is not None:
        yield "Frames per second", "", media.fps


def _of_annotation(annotation: Annotation, media: tuple[Media, ...]) -> Iterator[tuple[str, str, float]]:
    match annotation:
        case Caption():
            yield "Caption words", "", _length(annotation.text)
        case Question():
            yield "Question words", "", _length(annotation.question)
            yield "Answers per question", "", len(annotation.answers)
        case Grounding():
            yield "Expression words", "", _length(annotation.text)
        case Entailment():
            yield "Hypothesis words", "", _length(annotation.hypothesis)
        case Statement():
            yield "Statement words", "", _length(annotation.text)
        case Text():
            yield "Source words", "", _length(annotation.source)
            if annotation.target is not None:
                yield "Target words", "", _length(annotation.target)
        case ImageCode():
            yield "Image codes", "", len(annotation.codes)
    if isinstance(annotation, Grounding | Detection) and media and media[0].width and media[0].height:
        x0, y0, x1, y1 = annotation.box
        area = max(0.0, x1 - x0) * max(0.0, y1 - y0) / (media[0].width * media[0].height)
        yield "Box side in picture", "%", 100 * math.sqrt(area)


def _words(annotation: Annotation) -> Iterator[tuple[str, str]]:
    match annotation:
        case Detection() | Entailment() if annotation.label is not None:
            yield "Labels", annotation.label
        case Label():
            yield "Labels", annotation.name
        case Statement() if annotation.label is not None:
            yield "Labels", "true" if annotation.label else "false"
        case Question():
            if annotation.answers:
                yield "Best answers", annotation.answers[0].text
            if annotation.answer_type is not None:
                yield "Kinds of answer", annotation.answer_type
            if annotation.question_type is not None:
                yield "Kinds of question", annotation.question_type
        case Text() if annotation.target is not None and _length(annotation.target) <= 2:
            yield "Short targets", annotation.target


def _length(text: str) -> int:
    return len(text.split())
