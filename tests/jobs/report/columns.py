"""Columns as the verbs `concepts`, `negatives` and `filter` leave them, beside a dataset of captions made in code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from shards.reader import Dataset
from shards.sidecar import write_sidecar
from tests.jobs.report.modalities import kinds, write_kind

NASTY = '"><script>alert(1)</script>'


def write_column(
    dataset: Dataset, column: str, values: dict[str, list[Any]], card: dict[str, Any] | None = None
) -> None:
    """Write a column of a dataset of one shard."""
    write_sidecar(
        dataset.storage,
        column=column,
        digest8="0a1b2c3d",
        shard=dataset.manifest[0].name,
        keys=dataset.index(0).keys,
        values=pa.table(values),
        card=card or {},
    )


def captioned(folder: Path, *, concepts: list[list[str]]) -> Dataset:
    """Pictures with captions and with these concepts, the first of them the likeliest."""
    dataset = write_kind(folder, kinds()["captions"], records=len(concepts))
    scores = [[0.5 - 0.01 * place for place in range(len(row))] for row in concepts]
    write_column(dataset, "concepts", {"phrases": concepts, "scores": scores}, {"top_k": 3})
    return dataset
