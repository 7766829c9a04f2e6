"""A dataset of tars that others wrote: indexed where they lie, never copied."""

from __future__ import annotations

from contextlib import closing
from functools import partial

from jobs.executors import ExecutorConfig, executor_for, refuse_relative_paths
from jobs.progress import progress
from pipelines.index_tars import (
    IndexConfig,
    TarUnit,
    committed_tars,
    finish_index,
    index_tar,
    plan_tars,
)
from shards.manifest import Card
from shards.stores import open_storage

HELP = "makes a dataset of webdataset or img2dataset tars where they lie; not one byte of media is copied"


class Config(IndexConfig, ExecutorConfig):
    """Which tars to index, and where the work runs."""

    def indexing(self) -> IndexConfig:
        """The part that says what the dataset is, with an output that holds in any process."""
        fields = {name: getattr(self, name) for name in IndexConfig.model_fields}
        return IndexConfig(**fields | {"output": open_storage(self.output).url})


def run(config: Config, *, dry_run: bool) -> int:
    """Plan, index what is not committed yet, merge; print one line with the result."""
    refuse_relative_paths(
        {f"shards.{number}": path for number, path in enumerate(config.shards)} | {"output": config.output}
    )
    indexing = config.indexing()
    units = plan_tars(indexing)
    if dry_run:
        left = len(units) - len(committed_tars(indexing, units))
        print(f"{len(units):,} tars ({left:,} left), {_size(sum(unit.bytes for unit in units))} -> {indexing.output}")
        return 0
    open_storage(indexing.output).ensure_writable()
    print(_result_line(indexing, _index(config, indexing, units), units))
    return 0


def _index(config: Config, indexing: IndexConfig, units: tuple[TarUnit, ...]) -> Card:
    done = committed_tars(indexing, units)
    digest = indexing.digest()
    left = [unit for unit in units if unit.id(digest) not in done]
    with (
        closing(executor_for(config).run(partial(partial, index_tar, indexing), left)) as outcomes,
        progress("index", total=len(units), unit="tars", done=len(done)) as bar,
    ):
        for outcome in outcomes:
            bar.advance(records=outcome.result.records, rejected=outcome.result.raw_items - outcome.result.records)
    return finish_index(indexing, units)


def _result_line(indexing: IndexConfig, card: Card, units: tuple[TarUnit, ...]) -> str:
    rejects = ", ".join(f"{reason} {count:,}" for reason, count in card.rejects.items())
    return (
        f"{card.name}-{card.split}: {card.records:,} records, {card.annotations:,} annotations in {len(units):,} tars of "
        f"{_size(sum(unit.bytes for unit in units))}, headers {_size(card.bytes)}; rejects: {rejects or 'none'} "
        f"-> {indexing.output}"
    )


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
