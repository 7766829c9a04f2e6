"""The table of a page's datasets and the ledger of each, as sentences."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.report.markup import Markup, table, tag
from shards.reader import Dataset


def datasets_section(datasets: Sequence[Dataset], ledgers: Sequence[tuple[str, str]]) -> Markup:
    """A table of the datasets: size, rejects, digest; under it what went in and came out.

    Args:
        datasets: at least one.
        ledgers: (what, sentence) for each dataset and each column of annotations.
    """
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
            "Each record is one media item with everything said about it, written once into an immutable shard.",
            class_="lead",
        ),
        table(head, rows, label="Datasets of this report", class_="stack numbers"),
        tag("dl", *(tag("div", tag("dt", what), tag("dd", sentence)) for what, sentence in ledgers), class_="ledger"),
        id="data",
    )


def size_text(count: int) -> str:
    """Write a number of bytes as a person reads it."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
