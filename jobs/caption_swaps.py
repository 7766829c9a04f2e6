"""Captions with words exchanged: counts which words come together over the whole dataset, then makes the column shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from concepts.nouns import ShardUnit
from concepts.phrases import PhraseConfig, PhraseExtractor
from concepts.swap_column import SWAPS, SwapMaker, SwapPlan, UsageCounter, write_usage
from concepts.swaps import Use
from jobs.executors import ExecutorConfig, executor_for
from jobs.pair_embeddings import lacking, pictures_in, require_captions
from jobs.progress import progress
from shards.reader import Dataset
from shards.sidecar import open_sidecar


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapSummary:
    """What a run made."""

    column: str  # swaps-<digest8>
    tagger: str
    kinds: Mapping[str, int]  # wrong captions of each kind


def swap_captions(
    config: ExecutorConfig, dataset: Dataset, *, phrases: PhraseConfig, min_seen: int, seed: int
) -> SwapSummary:
    """Make the column `swaps` of a dataset; what an earlier run has finished is found and kept."""
    dataset.storage.ensure_writable()
    require_captions(dataset)
    tagger = PhraseExtractor(phrases).name
    plan = SwapPlan(dataset=dataset.digest, tagger=tagger, max_words=phrases.max_words, min_seen=min_seen, seed=seed)
    units = lacking(dataset, SWAPS, plan.digest8)
    if units:
        write_usage(dataset, plan, _usage(config, dataset, UsageCounter(phrases, plan)))
    with progress("swaps", total=len(dataset), unit="records", done=len(dataset) - pictures_in(dataset, units)) as bar:
        for outcome in executor_for(config).run(SwapMaker(phrases, plan).begin, units):
            bar.advance(outcome.result)
    sidecar = open_sidecar(dataset, f"{SWAPS}-{plan.digest8}")
    kinds: Counter[str] = Counter()
    for shard in range(len(dataset.manifest)):
        kinds.update(sidecar.table(shard, fields=("kinds",))["kinds"].combine_chunks().flatten().to_pylist())
    return SwapSummary(column=f"{SWAPS}-{plan.digest8}", tagger=tagger, kinds=kinds)


def _usage(config: ExecutorConfig, dataset: Dataset, counter: UsageCounter) -> Counter[Use]:
    units = [ShardUnit(dataset.path, shard) for shard in range(len(dataset.manifest))]
    total: Counter[Use] = Counter()
    with progress("usage", total=len(dataset), unit="records") as bar:
        for outcome in executor_for(config).run(counter.begin, units):
            total.update(outcome.result)
            bar.advance(pictures_in(dataset, [outcome.unit]))
    return total
