"""What a run says of single questions, hypotheses, statements and expressions: its scores, and examples right and wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jobs.report.findings import Evaluation
from jobs.report.heat import heat_layer
from jobs.report.markup import Markup, join, table, tag
from jobs.report.overlays import Marked, clipped, overlay, shown_size
from jobs.report.pictures import Locator, picture_uri
from jobs.report.sayings import saying
from shards.records import Media, Record

TITLES: Mapping[str, str] = {
    "vqa": "Answers to questions",
    "entailment": "Does the picture entail it?",
    "statement": "Statements about two pictures",
    "grounding": "Where an expression is seen",
}
SAID: Mapping[str, str] = {
    "vqa_accuracy": "accuracy",
    "constant": "always the commonest answer",
    "constant_by_type": "the commonest answer of each kind of question",
    "pointing": "peak in the true box",
    "found": "chosen box overlaps by a half",
    "largest": "always the largest proposed box",
}
GUESSES = frozenset({"constant", "constant_by_type", "largest"})
MAIN = "found/all"  # is told first of what is scored by several measures
THUMB, LARGE = 256, 480  # pixels of the longer side of a copied picture, and of one with a map
MOST_LINES = 12  # of a table; the rest is folded away
FOUND_AT = 0.5  # of a true box, for a chosen one to be right
TRUTH_COLOUR, CHOSEN_COLOUR = "#2f7d4f", "#1d6fb8"

Verdict = Literal["right", "wrong", "open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Some predictions of an evaluation, and how many there are of their kind."""

    verdict: Verdict
    rows: tuple[Mapping[str, Any], ...]
    of: int


def task_section(evaluation: Evaluation, locator: Locator, *, count: int, name: str) -> Markup:
    """Show one evaluation that is no retrieval.

    Args:
        evaluation: with its predictions beside it.
        locator: finds the records that the predictions are about.
        count: how many right and how many wrong ones to show.
        name: of the section on its page.
    """
    task = evaluation.task or ""
    parts: list[Markup | None] = [_scores(evaluation)]
    for examples in choose_examples(evaluation, count):
        shown = [_example(row, examples.verdict, locator, is_map=task == "grounding") for row in examples.rows]
        title = {"right": "Right", "wrong": "Wrong", "open": "Without published truth"}[examples.verdict]
        parts += [
            tag("h3", f"{title}, {len(shown)} of {examples.of:,}"),
            tag("div", *shown, class_="gallery of-prediction"),
        ]
    return tag(
        "section",
        tag("h2", f"{TITLES.get(task, task.capitalize())} · {evaluation.title}"),
        tag("p", _lead(evaluation), class_="lead"),
        *parts,
        id=name,
    )


def headline(evaluation: Evaluation) -> tuple[str, str] | None:
    """The main score of an evaluation and what it is, beside the best guess without looking; None where it has none."""
    metrics = evaluation.metrics
    main = next((name for name in (MAIN, *metrics) if name in metrics and name.split("/")[0] not in GUESSES), None)
    if main is None:
        return None
    kind, *of = main.split("/")
    guesses = [metrics[name] for name in ("/".join((guess, *of)) for guess in GUESSES) if name in metrics]
    guess = max([*guesses, *filter(None, [evaluation.chance.get(main)])], default=None)
    said = f"{SAID.get(kind, kind.replace('_', ' '))}, {evaluation.title}"
    return f"{metrics[main]:.1f} %", said if guess is None else f"{said}; by guessing {guess:.1f} %"


def choose_examples(evaluation: Evaluation, count: int) -> list[Examples]:
    """Choose up to `count` right and `count` wrong predictions, spread evenly over the file, the same ones each time.

    Of one record, a second one is taken only where there are not enough records.
    """
    places: dict[Verdict, dict[str, list[int]]] = {}
    for number, row in enumerate(evaluation.predictions()):
        places.setdefault(verdict_of(row), {}).setdefault(str(row["key"]), []).append(number)
    kept: dict[int, Verdict] = {}
    for verdict, by_record in places.items():
        firsts = [numbers[0] for numbers in by_record.values()]
        numbers = firsts if len(firsts) >= count else [number for each in by_record.values() for number in each]
        few = min(count, len(numbers))
        kept |= {numbers[place * len(numbers) // few]: verdict for place in range(few)}
    rows: dict[Verdict, list[Mapping[str, Any]]] = {}
    for number, row in enumerate(evaluation.predictions()):
        if number in kept:
            rows.setdefault(kept[number], []).append(row)
    order: tuple[Verdict, ...] = ("right", "wrong", "open")
    return [
        Examples(verdict=verdict, rows=tuple(rows[verdict]), of=sum(map(len, places[verdict].values())))
        for verdict in order
        if verdict in rows
    ]


def verdict_of(row: Mapping[str, Any]) -> Verdict:
    """Whether a prediction is right: an answer at least half so, a chosen box by its overlap, else a map by its peak."""
    if row.get("overlap") is not None:
        return "right" if row["overlap"] >= FOUND_AT else "wrong"
    if row.get("pointed") is not None:
        return "right" if row["pointed"] else "wrong"
    if row.get("right") is None:
        return "open"
    return "right" if row["right"] >= FOUND_AT else "wrong"


def _lead(evaluation: Evaluation) -> str:
    facts = evaluation.facts
    parts = [f"{facts.get('examples', 0):,} examples"]
    if facts.get("candidates"):
        parts.append(f"ranked among {facts['candidates']:,} candidates")
    if not evaluation.metrics:
        parts.append("the truth of this split is not published, so no score is possible")
    elif facts.get("scored", facts.get("examples")) != facts.get("examples"):
        parts.append(f"scored over the {facts['scored']:,} whose truth is published")
    if evaluation.task == "grounding":
        parts.append(
            "no box was seen in training; the map says how much each patch tells of the expression, the ring is its peak"
        )
    return f"{', '.join(parts)}."


def _scores(evaluation: Evaluation) -> Markup | None:
    """The metrics, the first of them in a table and the rest folded away; beside each what guessing reaches, where known."""
    if not evaluation.metrics:
        return None
    rows: list[tuple[str | Markup, ...]] = []
    # Kinds of question are many: they come last, where the table is folded.
    for name, value in sorted(evaluation.metrics.items(), key=lambda item: "/question_type/" in item[0]):
        guess = evaluation.chance.get(name)
        if name.split("/")[0] in GUESSES:
            rows.append((_said(name), "", _bar(value)))
        else:
            rows.append((_said(name), _bar(value), "" if guess is None else _bar(guess)))
    heads = ("", "percent", "by guessing")
    label = f"Scores, {evaluation.title}"
    first = table(heads, rows[:MOST_LINES], label=label, class_="numbers scores")
    if len(rows) <= MOST_LINES:
        return first
    rest = table(heads, rows[MOST_LINES:], label=f"{label}, continued", class_="numbers scores")
    return join([first, tag("details", tag("summary", f"{len(rows) - MOST_LINES} more"), rest)])


def _said(name: str) -> str:
    first, *rest = name.split("/", 2)  # a kind may hold the sign itself, as VQA's yes/no does
    return " · ".join([SAID.get(first, first.replace("_", " ")), *(part.replace("_", " ") for part in rest)])


def _bar(value: float) -> Markup:
    return tag("span", f"{value:.1f}", class_="bar", style=f"--share:{min(100.0, max(0.0, value)):.1f}%")


def _example(row: Mapping[str, Any], verdict: Verdict, locator: Locator, *, is_map: bool) -> Markup:
    """One prediction as a card: what it is about, what was found, and what is true."""
    record = locator.record(str(row["key"]))
    pictures = [media for media in record.media if media.kind == "image"] if record is not None else []
    texts = tag("div", *(_map_texts(row, verdict) if is_map else _ranking_texts(row, record, verdict)), class_="texts")
    facts = tag("p", tag("code", clipped(str(row["key"]), 80)), class_="facts")
    said = str(row.get("text") or row["key"])
    if is_map and record is not None and pictures:
        return tag("article", _mapped(row, record, pictures[0]), texts, facts, class_=f"card wide {verdict}")
    if record is not None and len(pictures) > 1:
        pair = [tag("div", _picture(record, media, alt=said), style=f"flex:{_aspect(media):.3f}") for media in pictures]
        return tag("article", tag("div", *pair, class_="side-by-side"), texts, facts, class_=f"card wide {verdict}")
    shown = _picture(record, pictures[0], alt=said) if record is not None and pictures else _no_picture(str(row["key"]))
    return tag("article", shown, texts, facts, class_=f"card {verdict}")


def _ranking_texts(row: Mapping[str, Any], record: Record | None, verdict: Verdict) -> list[Markup]:
    """The asked text with its truth, as a gallery shows it, and the best candidates with their probabilities."""
    number = int(row["annotation"])
    annotation = record.annotations[number] if record is not None and number < len(record.annotations) else None
    asked = (
        tag("p", str(row.get("text", "")), class_="first") if annotation is None else saying(annotation, before=None)
    )
    best = max((float(found["score"]) for found in row["ranked"]), default=0.0) or 1.0
    bars = [
        tag(
            "li",
            tag("span", clipped(str(found["text"]), 80)),
            tag("span", f"{float(found['score']):.2f}", class_="score"),
            style=f"--share:{100 * max(0.0, float(found['score'])) / best:.0f}%",
        )
        for found in row["ranked"]
    ]
    return [
        asked,
        tag("p", _mark(verdict, row.get("right")), " the run says ", tag("b", str(row["predicted"])), class_="said"),
        tag("ul", *bars, class_="ranking", aria_label="Candidates with their probabilities"),
    ]


def _map_texts(row: Mapping[str, Any], verdict: Verdict) -> list[Markup]:
    parts: list[Markup | str] = [_mark(verdict, None), " ", str(row.get("text", ""))]
    notes = []
    if row.get("overlap") is not None:
        notes.append(f"the chosen box overlaps the true one by {100 * float(row['overlap']):.0f} %")
    notes.append("the peak lies in the true box" if row.get("pointed") else "the peak lies outside of the true box")
    return [tag("p", *parts, class_="first"), tag("p", f"{'; '.join(notes)}.".capitalize())]


def _mark(verdict: Verdict, right: float | None) -> Markup:
    """Right or wrong, in a word and a colour; of answers that some annotators gave, how many per cent."""
    tone = {"right": "yes", "wrong": "no", "open": "open"}[verdict]
    word = {"right": "right", "wrong": "wrong", "open": "predicted"}[verdict]
    share = "" if right is None or right in (0.0, 1.0) else f" {100 * right:.0f} %"
    return tag("span", word + share, class_=f"verdict {tone}")


def _mapped(row: Mapping[str, Any], record: Record, media: Media) -> Markup:
    """The picture under its map, with the true box and the chosen one."""
    picture = _picture(record, media, alt=f"{row.get('text')}, with a map of where it is seen", longest=LARGE)
    if not media.width or not media.height:
        return picture
    boxes = [_marked(row.get("truth"), "truth", TRUTH_COLOUR), _marked(row.get("box"), "chosen", CHOSEN_COLOUR)]
    layers = [
        picture,
        heat_layer(row["map"], peak=row["peak"], width=media.width, height=media.height) if row.get("map") else None,
        overlay([box for box in boxes if box is not None], width=media.width, height=media.height),
    ]
    width = shown_size(media.width, media.height)[0]
    return tag(
        "div", *layers, class_="boxed", style=f"max-width:{width:.0f}px;aspect-ratio:{media.width}/{media.height}"
    )


def _marked(box: Sequence[float] | None, label: str, colour: str) -> Marked | None:
    """A box of x, y, width and height, to be drawn."""
    if box is None:
        return None
    x, y, width, height = box
    return Marked(box=(x, y, x + width, y + height), label=label, colour=colour)


def _picture(record: Record, media: Media, *, alt: str, longest: int = THUMB) -> Markup:
    uri = picture_uri(record.payload[media.member], where=record.key, longest=longest)
    return _no_picture(record.key) if uri is None else tag("img", src=uri, alt=alt, loading="lazy")


def _no_picture(key: str) -> Markup:
    return tag("span", "no picture", class_="no-picture", role="img", aria_label=key)


def _aspect(media: Media) -> float:
    return media.width / media.height if media.width and media.height else 1.0
