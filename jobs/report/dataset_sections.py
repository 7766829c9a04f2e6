"""The part of a page that tells of data: what there is, pictures with captions and concepts, and what was rejected."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.report.markup import Markup, table, tag
from jobs.report.pictures import Exhibit, concept_scores, exhibit_record, sample_rows
from shards.errors import DamagedRecordError
from shards.manifest import REJECTS_PATH
from shards.reader import Dataset

REASONS: Mapping[str, str] = {
    "missing_media": "the file that the annotations name is not there",
    "not_media": "the bytes are no picture, whatever the file's name says",
    "truncated_media": "the file ends before the picture does",
    "zero_size": "the file or the picture is empty",
    "decompression_bomb": "the picture would unpack to more pixels than allowed",
    "no_annotations": "nothing is said about the item",
    "empty_text": "the text is blank",
    "broken_utf8": "the text is not valid UTF-8",
    "box_outside": "the box lies outside the picture",
    "not_finite": "a number is infinite or not a number",
    "duplicate_id": "an item of this id came before",
    "missing_field": "a field is absent",
    "remote_media": "the media is a web address, which is not fetched here",
    "filtered": "a transform left it out",
    "unsupported": "a form that this source does not read",
}
MOST_REJECTS = 40  # rows shown; all are in rejects.parquet
MOST_CONCEPTS = 8


def datasets_section(datasets: Sequence[Dataset]) -> Markup:
    """A table of the datasets: size, ledger, licence."""
    rows = [
        (
            tag("span", f"{dataset.card.name} · {dataset.card.split}"),
            f"{dataset.card.records:,}",
            f"{dataset.card.annotations:,}",
            f"{dataset.card.shards:,}",
            size_text(dataset.card.bytes),
            f"{sum(dataset.card.rejects.values()):,}",
            tag("code", dataset.digest[:8]),
        )
        for dataset in datasets
    ]
    head = ("dataset", "records", "annotations", "shards", "size", "rejects", "digest")
    return tag(
        "section",
        tag("h2", "Data"),
        tag(
            "p",
            "Each record is one media item with everything said about it, written once into an immutable shard. "
            "The ledger closes: raw items in = records out + rejects, each of them named below.",
            class_="lead",
        ),
        table(head, rows, label="Datasets of this report", class_="stack numbers"),
        id="data",
    )


def gallery_section(
    dataset: Dataset, *, pictures: int, concepts: str, agreements: Mapping[str, tuple[float, float]]
) -> Markup | None:
    """Pictures spread evenly over a dataset, with what is said about them and the concepts that a CLIP model sees."""
    scores, card = concept_scores(dataset, sample_rows(dataset, pictures), column=concepts)
    exhibits = []
    for place in sample_rows(dataset, pictures):
        try:
            exhibits.append(exhibit_record(dataset.record(*place), scores.get(place)))
        except DamagedRecordError:
            continue  # `verify` names it; a page about the others is still wanted
    if not exhibits:
        return None
    every = max(1, len(dataset) // len(exhibits))
    named = f"{dataset.card.name} · {dataset.card.split}"
    told = f"{len(exhibits)} of the {len(dataset):,} records of {named}, spread evenly: one in {every:,}."
    if scores:
        told += (
            " The bars are visual concepts: nouns counted over the captions, ranked for each picture by the cosine between "
            "their CLIP embeddings. No caption of the picture is looked at."
        )
        own, other = agreements.get(f"{card['column']}-{card['digest8']}", (None, None))
        if own is not None:
            told += f" Of the best five, {own:.0%} are named in the picture's own captions; in another picture's, {other:.0%}."
    return tag(
        "section",
        tag("h2", "Pictures, captions and concepts" if scores else "Pictures and texts"),
        tag("p", told, class_="lead"),
        tag("p", concept_note(card), class_="quiet") if scores else None,
        tag("div", *(_card(exhibit) for exhibit in exhibits), class_="gallery"),
        id="pictures",
    )


def rejects_section(datasets: Sequence[Dataset]) -> Markup:
    """Every reject with its reason and raw id, counted by reason."""
    counts: Counter[str] = Counter()
    for dataset in datasets:
        counts.update(dataset.card.rejects)
    raw = sum(dataset.card.raw_items for dataset in datasets)
    if not counts.total():
        body = tag("p", f"None: all {raw:,} raw items became records.", class_="lead")
        return tag("section", tag("h2", "Rejects"), body, id="rejects")
    tally = tag(
        "ul",
        *(
            tag(
                "li",
                tag("b", f"{count:,}"),
                " ",
                tag("code", reason),
                " ",
                tag("span", REASONS.get(reason, ""), class_="quiet"),
            )
            for reason, count in counts.most_common()
        ),
        class_="tally",
    )
    shown = [(dataset, row) for dataset in datasets for row in first_rejects(dataset, MOST_REJECTS)][:MOST_REJECTS]
    rows = [
        (
            tag("code", row["id"]),
            f"{dataset.card.name} · {dataset.card.split}",
            row["level"],
            tag("code", row["reason"]),
            row["detail"],
        )
        for dataset, row in shown
    ]
    rest = counts.total() - len(rows)
    return tag(
        "section",
        tag("h2", "Rejects"),
        tag(
            "p",
            f"{counts.total():,} of {raw:,} raw items, or single annotations of them, did not become part of a record. "
            "None is dropped in silence.",
            class_="lead",
        ),
        tally,
        table(("raw id", "dataset", "level", "reason", "detail"), rows, label="Rejects", class_="stack"),
        tag("p", f"… and {rest:,} more in rejects.parquet.", class_="quiet") if rest else None,
        id="rejects",
    )


def first_rejects(dataset: Dataset, count: int) -> list[dict[str, Any]]:
    """Read the first rejects of a dataset: unit, id, reason, detail, level. There may be millions; only a page of them is made."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(dataset.storage.read(REJECTS_PATH)))
    batch = next(file.iter_batches(batch_size=count), None)
    return [] if batch is None else list(batch.to_pylist())


def size_text(count: int) -> str:
    """Write a number of bytes as a person reads it."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def concept_note(card: Mapping[str, Any]) -> str:
    """Name the column of concepts and, as far as its card tells, how many were chosen among how many."""
    chosen = f"the {card['top_k']} nearest" if "top_k" in card else "the nearest"
    among = f" of {card['phrases']:,} phrases" if "phrases" in card else " phrases"
    return f"Column {card['column']}-{card['digest8']}: {chosen}{among}; the best {MOST_CONCEPTS} are drawn."


def _card(exhibit: Exhibit) -> Markup:
    top = exhibit.concepts[:MOST_CONCEPTS]
    best = max((score for _, score in top), default=0.0)
    low = min((score for _, score in exhibit.concepts), default=0.0)
    bars = [
        tag(
            "li",
            tag("span", phrase),
            tag("span", f"{score:.2f}", class_="score"),
            # The bar starts a little below the weakest concept shown, because cosines of one picture lie close together.
            style=f"--share:{100 * (0.08 + 0.92 * (score - low) / (best - low) if best > low else 1.0):.0f}%",
        )
        for phrase, score in top
    ]
    first, *others = exhibit.texts or (exhibit.key,)
    return tag(
        "article",
        exhibit.picture(),
        tag("div", tag("p", first, class_="first"), *(tag("p", text) for text in others), class_="texts"),
        tag("ul", *bars, class_="concepts", aria_label="Concepts with scores") if bars else None,
        class_="card",
    )
