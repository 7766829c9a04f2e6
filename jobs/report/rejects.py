"""What did not become part of a record: every reason with examples, and the ledger that shows that nothing else is missing."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jobs.report.markup import Markup, table, tag
from jobs.report.overlays import clipped
from shards.annotations import REJECTS, Ledger
from shards.errors import DatasetError
from shards.manifest import Card
from shards.reader import Dataset
from shards.rejects import REJECTS_PATH

REASONS: Mapping[str, str] = {
    "missing_media": "the file that the annotations name is not there",
    "outside_media": "the path, or the link behind it, leads out of the media folder",
    "not_media": "the bytes are no picture, clip or sound, whatever the file's name says",
    "truncated_media": "the file ends before its picture, clip or sound does",
    "zero_size": "the file, or what it holds, is empty",
    "decompression_bomb": "the picture would unpack to more pixels than allowed",
    "no_annotations": "nothing is said about the item",
    "empty_text": "the text is blank",
    "broken_utf8": "the text is not valid UTF-8",
    "box_outside": "the box lies outside the picture",
    "span_outside": "the span of time that is annotated lies outside the clip or sound",
    "empty_box": "the box has no width or no height",
    "size_mismatch": "the stored media is not of the size that the annotations were made on",
    "not_finite": "a number is infinite or not a number",
    "duplicate_id": "an item of this id came before",
    "duplicate": "another item has the same picture, or nearly the same one",
    "missing_field": "a field is absent",
    "remote_media": "the media is a web address, which is not fetched here",
    "filtered": "left out on purpose",
    "unsupported": "a form that this source does not read",
}
MOST_EXAMPLES = 40  # rows shown of all datasets together; all are in rejects.parquet
LONGEST_DETAIL = 300  # letters


@dataclass(frozen=True, kw_only=True)
class RejectFile:
    """The rejects of a dataset or of a column of annotations, read in pieces: there may be millions."""

    title: str
    data: bytes

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rejects in their order: unit, id, level, reason, detail, annotations."""
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(io.BytesIO(self.data)).iter_batches(batch_size=1024):
            yield from batch.to_pylist()

    @cached_property
    def counts(self) -> Counter[str]:
        """How many there are by reason, items and annotations together."""
        import pyarrow.parquet as pq

        counts: Counter[str] = Counter()
        for batch in pq.ParquetFile(io.BytesIO(self.data)).iter_batches(columns=["reason"]):
            counts.update({row["values"]: row["counts"] for row in batch["reason"].value_counts().to_pylist()})
        return counts

    @cached_property
    def levels(self) -> tuple[int, int, int]:
        """How many items, how many annotations by name, and how many annotations that were lost with their item."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        items = named = lost = 0
        for batch in pq.ParquetFile(io.BytesIO(self.data)).iter_batches(columns=["level", "annotations"]):
            of_items = pc.equal(batch["level"], "item")
            here = pc.sum(of_items).as_py() or 0
            items += here
            named += batch.num_rows - here
            lost += pc.sum(pc.filter(batch["annotations"], of_items)).as_py() or 0
        return items, named, lost

    def examples(self, each: int) -> list[dict[str, Any]]:
        """The first few rejects of every reason, the most frequent reason first."""
        wanted = {reason: min(each, count) for reason, count in self.counts.items()}
        found: dict[str, list[dict[str, Any]]] = {reason: [] for reason, _ in self.counts.most_common()}
        for row in self.rows():
            if wanted[row["reason"]]:
                wanted[row["reason"]] -= 1
                found[row["reason"]].append(row)
                if not any(wanted.values()):
                    break
        return [row for rows in found.values() for row in rows]


def dataset_rejects(dataset: Dataset) -> RejectFile:
    """The rejects of a dataset's conversion. Raises `DatasetError` where the file is missing or damaged."""
    title = f"{dataset.card.name} · {dataset.card.split}"
    return RejectFile(title=title, data=_read(dataset, REJECTS_PATH))


def column_rejects(dataset: Dataset, folder: str) -> RejectFile:
    """The rejects of annotations that were attached later. Raises `DatasetError` where the file is missing or damaged."""
    title = f"{folder.removeprefix('sidecars/')} on {dataset.card.name} · {dataset.card.split}"
    return RejectFile(title=title, data=_read(dataset, f"{folder}/{REJECTS}"))


def ledger_sentence(card: Card, rejects: RejectFile) -> str:
    """Say what went in and what came out of a conversion, and whether the two agree."""
    items, named, lost = rejects.levels
    closes = card.raw_items == card.records + items and card.raw_annotations == card.annotations + named + lost
    return (
        f"{card.raw_items:,} raw items in = {card.records:,} records out + {items:,} rejected. "
        f"{card.raw_annotations:,} raw annotations in = {card.annotations:,} stored + {named:,} rejected by name "
        f"+ {lost:,} lost with their item. " + _verdict(closes)
    )


def column_sentence(ledger: Ledger, rejects: RejectFile) -> str:
    """Say what became of the annotations that were attached to a dataset later."""
    _, named, lost = rejects.levels
    closes = ledger.raw_annotations == ledger.annotations + named + lost
    return (
        f"{ledger.raw_items:,} raw items in, {ledger.matched_items:,} found their picture here. "
        f"{ledger.raw_annotations:,} raw annotations in = {ledger.annotations:,} attached to {ledger.records:,} records "
        f"+ {named:,} rejected by name + {lost:,} lost with their item. " + _verdict(closes)
    )


def rejects_section(files: Sequence[RejectFile]) -> Markup:
    """Every reason with its count and a few examples, for datasets and columns together."""
    counts: Counter[str] = Counter()
    for file in files:
        counts.update(file.counts)
    if not counts.total():
        body = tag("p", "None: every raw item became a record, with all its annotations.", class_="lead")
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
    each = max(1, MOST_EXAMPLES // max(1, sum(len(file.counts) for file in files)))
    shown = [(file.title, row) for file in files for row in file.examples(each)][:MOST_EXAMPLES]
    rows = [
        (
            tag("code", clipped(row["id"], 120)),
            title,
            row["level"],
            tag("code", row["reason"]),
            clipped(row["detail"], LONGEST_DETAIL),
        )
        for title, row in shown
    ]
    rest = counts.total() - len(rows)
    return tag(
        "section",
        tag("h2", "Rejects"),
        tag(
            "p",
            f"{counts.total():,} raw items, or single annotations of them, did not become part of a record. "
            "None is dropped in silence.",
            class_="lead",
        ),
        tally,
        table(("raw id", "dataset", "level", "reason", "detail"), rows, label="Rejects", class_="stack rejects"),
        tag("p", f"… and {rest:,} more in rejects.parquet.", class_="quiet") if rest else None,
        id="rejects",
    )


def _read(dataset: Dataset, path: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    advice = "run the `verify` verb on the dataset"
    try:
        data = dataset.storage.read(path)
        pq.ParquetFile(io.BytesIO(data))
    except FileNotFoundError as problem:
        raise DatasetError(f"{dataset.storage.path(path)} is missing; {advice}") from problem
    except pa.ArrowException as problem:
        raise DatasetError(f"{dataset.storage.path(path)} lists no rejects ({problem}); {advice}") from problem
    return data


def _verdict(closes: bool) -> str:
    return "The ledger closes." if closes else "The ledger does NOT close: run `verify` on the dataset."
