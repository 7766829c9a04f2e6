"""Pools to draw negatives from: collected shard by shard, or read from files, written as a column and as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from concepts.nouns import ShardUnit
from concepts.pools import (
    POOLS,
    Collected,
    ObjectFinder,
    PoolCollector,
    PoolPlan,
    merge_pools,
    write_pools,
)
from jobs.executors import ExecutorConfig, executor_for
from jobs.pair_embeddings import lacking, pictures_in
from jobs.progress import progress
from shards.errors import DatasetError, InputError
from shards.pools import ANSWERS_FILE, CAPTIONS_FILE, OBJECTS_FILE, Pools, decode_pools, encode_pools
from shards.reader import Dataset
from shards.sidecar import open_sidecar
from shards.stores import open_storage


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSummary:
    """What a run made."""

    column: str  # pools-<digest8>
    pools: Pools
    with_objects: int  # records that name an object of the pool


def make_pools(
    config: ExecutorConfig, dataset: Dataset, *, max_captions: int, files: str | None, output: str | None
) -> PoolSummary:
    """Make the column `pools` of a dataset.

    Args:
        config: where the work runs.
        dataset: captions, questions or boxes.
        max_captions: of the pool of captions.
        files: a folder whose files take the place of what the dataset holds.
        output: a folder that gets the three files, too.

    Raises:
        InputError: the files cannot be read, or the output cannot be written.
        DatasetError: there is nothing to draw from.
    """
    dataset.storage.ensure_writable()
    if output is not None:
        open_storage(output).ensure_writable()
    given = _read_files(files) if files else None
    pools = _with_files(_collected(config, dataset, max_captions), given, files)
    if not (pools.captions or pools.objects or pools.answers):
        raise DatasetError(
            f"{dataset.path} holds no captions, labels or answers to draw from; give a folder with them by files="
        )
    if output is not None:
        _write_files(Path(output), pools)
    plan = PoolPlan(dataset=dataset.digest, pools=pools.digest)
    write_pools(dataset, pools, plan)
    units = lacking(dataset, POOLS, plan.digest8)
    with progress(
        "objects", total=len(dataset), unit="records", done=len(dataset) - pictures_in(dataset, units)
    ) as bar:
        for outcome in executor_for(config).run(ObjectFinder(plan).begin, units):
            bar.advance(outcome.result)
    sidecar = open_sidecar(dataset, f"{POOLS}-{plan.digest8}")
    named = sum(
        int((sidecar.table(shard)["objects"].combine_chunks().value_lengths().to_numpy(zero_copy_only=False) > 0).sum())
        for shard in range(len(dataset.manifest))
    )
    return PoolSummary(column=f"{POOLS}-{plan.digest8}", pools=pools, with_objects=named)


def _collected(config: ExecutorConfig, dataset: Dataset, max_captions: int) -> Pools:
    units = [ShardUnit(dataset.path, shard) for shard in range(len(dataset.manifest))]
    parts: dict[int, Collected] = {}
    with progress("pools", total=len(dataset), unit="records") as bar:
        for outcome in executor_for(config).run(PoolCollector(max_captions=max_captions).begin, units):
            parts[outcome.unit.shard] = outcome.result
            bar.advance(pictures_in(dataset, [outcome.unit]))
    return merge_pools([parts[shard] for shard in sorted(parts)], max_captions=max_captions)


def _read_files(folder: str) -> Pools:
    return decode_pools(lambda name: Path(folder, name).read_bytes(), where=folder)


def _with_files(own: Pools, given: Pools | None, folder: str | None) -> Pools:
    if given is None or folder is None:
        return own
    there = {name: Path(folder, name).is_file() for name in (CAPTIONS_FILE, OBJECTS_FILE, ANSWERS_FILE)}
    return Pools(
        captions=given.captions if there[CAPTIONS_FILE] else own.captions,
        objects=given.objects if there[OBJECTS_FILE] else own.objects,
        answers=given.answers if there[ANSWERS_FILE] else own.answers,
    )


def _write_files(folder: Path, pools: Pools) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in encode_pools(pools).items():
            (folder / name).write_bytes(data)
    except OSError as problem:
        raise InputError(f"output: {folder} cannot be written ({problem.strerror}); choose another output") from problem
