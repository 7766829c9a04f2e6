"""`leakage`: does one dataset (a training split) hold pictures of another (its test split)?"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pydantic import Field

from jobs.executors import ExecutorConfig, cluster_for, executor_for
from jobs.progress import progress
from pipelines.duplicates import By, Fingerprint, fingerprint, leaks
from shards.errors import InputError
from shards.index import encode_parquet
from shards.reader import Dataset, open_dataset

HELP = "pictures of one dataset that another one holds too, by bytes or by looks; exit 1 names them"

_SHOWN = 20


class Config(ExecutorConfig):
    """Which datasets to compare, and how."""

    dataset: str
    """the one that must not hold the other's pictures: usually the training split"""
    against: str
    """the one whose pictures must not be known: usually the test split"""
    by: By = "perceptual"
    """`content`: equal bytes; `perceptual`: pictures that look alike, such as other sizes and encodings of one photo"""
    distance: int = Field(default=4, ge=0, le=16)
    """of `perceptual`: in how many of 64 bits two hashes may differ"""
    output: str | None = None
    """a Parquet file for the pairs of keys, e.g. leaks.parquet"""


def run(config: Config, *, dry_run: bool) -> int:
    """Compare; print what leaks, one line each, and return 1 where anything does."""
    dataset, against = open_dataset(config.dataset), open_dataset(config.against)
    if dry_run:
        print(f"would take {len(dataset):,} + {len(against):,} fingerprints by {config.by}")
        return 0
    with cluster_for(config):
        there_keys, there = _fingerprints(config, against)
        keys, prints = _fingerprints(config, dataset)
    found = leaks(prints, against=there, distance=config.distance)
    pairs = [(keys[place], there_keys[first]) for place, first in sorted(found.items())]
    if config.output is not None:
        _write(Path(config.output), pairs)
    for key, other in pairs[:_SHOWN]:
        print(f"{key} is {other}")
    more = f" (the first {_SHOWN} are above)" if len(pairs) > _SHOWN else ""
    advice = (
        "; leave them out with transforms=[{kind: drop_duplicates, by: "
        f"{config.by}, against: [{config.against}]}}] when the dataset is made"
    )
    print(
        f"{config.dataset}: {len(pairs):,} of {len(dataset):,} records are also in {config.against}{more}{advice if pairs else ''}"
    )
    return 1 if pairs else 0


def _fingerprints(config: Config, dataset: Dataset) -> tuple[list[str], list[Fingerprint]]:
    """Keys and fingerprints in the order of the dataset, whichever shard is finished first."""
    shards = range(len(dataset.manifest))
    by_shard: dict[int, tuple[list[str], list[Fingerprint]]] = {}
    with progress("fingerprints", total=len(dataset), unit="records") as bar:
        for outcome in executor_for(config).run(partial(partial, _of_shard, dataset, config.by), shards):
            by_shard[outcome.unit] = outcome.result
            bar.advance(len(outcome.result[0]))
    keys = [key for shard in shards for key in by_shard[shard][0]]
    return keys, [print for shard in shards for print in by_shard[shard][1]]


def _of_shard(dataset: Dataset, by: By, shard: int) -> tuple[list[str], list[Fingerprint]]:
    pairs = [(record.key, fingerprint(record, by=by)) for record in dataset.records(shard)]
    return [key for key, _ in pairs], [print for _, print in pairs]


def _write(path: Path, pairs: list[tuple[str, str]]) -> None:
    import pyarrow as pa

    columns = {"key": [key for key, _ in pairs], "against": [other for _, other in pairs]}
    schema = pa.schema([pa.field("key", pa.string()), pa.field("against", pa.string())])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_parquet(pa.table(columns, schema=schema)))
    except OSError as problem:
        raise InputError(f"output: {path} cannot be written ({problem.strerror}); choose another output") from problem
