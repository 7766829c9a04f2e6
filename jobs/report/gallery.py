"""A sample of a dataset's records as cards, as many as the page has room for, and the annotations that were attached later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.report.cards import MOST_CONCEPTS, record_card
from jobs.report.learned import Learned, LearnedColumns
from jobs.report.markup import Markup, tag
from jobs.report.pictures import sample_rows
from jobs.report.room import Room
from shards.annotations import read_ledger
from shards.errors import DatasetError
from shards.reader import Dataset, open_dataset

_MEDIA = {"image": "pictures", "video": "clips", "audio": "sounds", "regions": "region features"}
_SAID = {
    "caption": "captions",
    "question": "questions",
    "grounding": "expressions",
    "detection": "objects",
    "entailment": "hypotheses",
    "statement": "statements",
    "label": "labels",
    "image_code": "image codes",
}


def gallery_section(
    dataset: Dataset,
    *,
    records: int,
    columns: LearnedColumns | None,
    agreements: Mapping[str, tuple[float, float]],
    room: Room,
    name: str = "records",
    column: str | None = None,
) -> Markup | None:
    """Records spread evenly over a dataset, with what is said about them and the concepts that a CLIP model sees.

    Args:
        dataset: the one to show, or the view of it through a column of annotations.
        records: how many at most.
        columns: what was learned about its records; None: nothing is shown of it.
        agreements: by column, how far the best concepts agree with captions; empty where that is not known.
        room: of these galleries; cards that would not fit are left out, and the page says so.
        name: of this gallery in links.
        column: the column of annotations that the dataset is seen through.

    Returns:
        The section; None where the dataset has no record that can be read.
    """
    places = sample_rows(dataset, records)
    card = columns.concepts.card if columns is not None and columns.concepts is not None else None
    cards: list[Markup] = []
    unreadable = 0
    for tried, place in enumerate(places):
        try:
            record = dataset.record(*place)
        except DatasetError:
            unreadable += 1  # `verify` names what is damaged or missing; a page about the others is still wanted
            continue
        learned = Learned() if columns is None else columns.of(place[0], record.key)
        drawn = record_card(record, learned=learned, allowance=room.share(len(places) - tried))
        if len(drawn.encode()) > room.left:
            break
        room.spend(drawn)
        cards.append(drawn)
    if not cards:
        return None
    named = f"{dataset.card.name} · {dataset.card.split}"
    whole = "The one record" if len(cards) == 1 else f"All {len(cards):,} records"
    share = whole if len(cards) == len(dataset) else f"{len(cards)} of the {len(dataset):,} records"
    told = f"{share} of {named}"
    told += f" that have annotations of the column {column}" if column is not None else ""
    every = max(1, len(dataset) // len(cards))
    told += f", spread evenly: one in {every:,}." if every > 1 else "."
    if unreadable:
        told += f" {unreadable} more could not be read; what verify says is below."
    if len(cards) + unreadable < len(places):
        told += f" {len(places)} were asked for, and the page's budget ends here."
    if card is not None:
        told += _about_concepts(card, agreements)
    kind = dataset.card.annotation_type or ""
    return tag(
        "section",
        tag("h2", heading(dataset, concepts=card is not None) + ("" if column is None else f", attached by {column}")),
        tag("p", told, class_="lead"),
        tag("p", concept_note(card), class_="quiet") if card is not None else None,
        tag("div", *cards, class_=f"gallery of-{kind or 'all'}"),
        id=name,
    )


def heading(dataset: Dataset, *, concepts: bool) -> str:
    """Name what a gallery shows: pictures and texts, clips and captions, sounds and labels, …"""
    kinds = [_MEDIA.get(kind, kind) for kind in dataset.card.media_kinds]
    if concepts:
        kinds.append("captions")
        said = "concepts"
    else:
        said = (
            "texts"
            if dataset.card.annotation_type == "text"
            else _SAID.get(dataset.card.annotation_type or "", "annotations")
        )
    words = [*kinds, said]
    name = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return name.capitalize()


def annotation_columns(dataset: Dataset) -> list[str]:
    """The finished columns of annotations beside a dataset, by folder name."""
    columns = []
    for folder in dataset.storage.folders("sidecars"):
        try:
            read_ledger(dataset.storage, folder)
        except DatasetError:
            continue  # of another kind, not finished, or damaged, which `verify` tells
        columns.append(folder.removeprefix("sidecars/"))
    return columns


def seen_through(dataset: Dataset, columns: Sequence[str]) -> list[tuple[str, Dataset]]:
    """The dataset as each of its columns of annotations shows it; those that are not finished are left out."""
    views = []
    for column in columns:
        try:
            views.append((column, open_dataset(dataset.path, annotations=column)))
        except DatasetError:
            continue
    return views


def concept_note(card: Mapping[str, Any]) -> str:
    """Name the column of concepts and, as far as its card tells, how many were chosen among how many."""
    if "source" in card:
        return f"Column {card['column']}-{card['digest8']}: the first {MOST_CONCEPTS} are shown."
    chosen = f"the {card['top_k']} nearest" if "top_k" in card else "the nearest"
    among = f" of {card['phrases']:,} phrases" if "phrases" in card else " phrases"
    drawn = f"of the best {MOST_CONCEPTS}, bars reach from the last to the first"
    return f"Column {card['column']}-{card['digest8']}: {chosen}{among}; {drawn}."


def _about_concepts(card: Mapping[str, Any], agreements: Mapping[str, tuple[float, float]]) -> str:
    if "source" in card:
        return f" The concepts came with the raw data ({card['source']}), in its order and without scores."
    told = (
        " The bars are visual concepts: nouns counted over the captions, ranked for each picture by the cosine between "
        "their CLIP embeddings. No caption of the picture is looked at."
    )
    own, other = agreements.get(f"{card['column']}-{card['digest8']}", (None, None))
    if own is not None and other is not None:
        told += (
            f" Of the best five, {own:.0%} are named in the picture's own captions; in another picture's, {other:.0%}."
        )
    return told
