"""The hard captions of every picture: image and caption embeddings, then an exact search with a guard against false negatives."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field, PositiveInt, field_validator

from concepts.embed import EmbedderConfig
from concepts.negatives import NEGATIVES, NegativeMiner, NegativePlan
from concepts.nouns import ShardUnit
from jobs.executors import ExecutorConfig, cluster_for, executor_for
from jobs.pair_embeddings import as_they_are, lacking, pair_stage, pictures_in
from jobs.progress import progress
from shards.reader import Dataset, open_dataset

HELP = "for each picture, the captions of other pictures that CLIP takes for its own, as a sidecar"


class Config(ExecutorConfig):
    """Whose captions to confuse, and how hard."""

    dataset: str
    """pictures with captions; each picture's negatives are captions of the others"""
    embedder: EmbedderConfig = EmbedderConfig()
    top_k: PositiveInt = 10
    """captions per picture"""
    guard_cosine: float = Field(0.9, ge=-1, le=1)
    """a caption closer than this to one of the picture's own captions (cosine of text embeddings) may be true of it: left out"""

    @field_validator("embedder")
    @classmethod
    def _captions_stand_alone(cls, embedder: EmbedderConfig) -> EmbedderConfig:
        return as_they_are(embedder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run made."""

    column: str  # negatives-<digest8>
    pictures: int
    mined: int  # the rest had their negatives from an earlier run
    embedded: int  # pictures that went through the model
    seconds: float


def run(config: Config, *, dry_run: bool) -> int:
    """Mine the dataset; print one line with the result."""
    dataset = open_dataset(config.dataset)
    if dry_run:
        print(
            f"{len(dataset):,} pictures in {len(dataset.manifest)} shards, {dataset.card.annotations:,} annotations; "
            f"{config.embedder.model} ({config.embedder.pretrained}), top {config.top_k}, guard {config.guard_cosine:g}"
        )
        return 0
    with cluster_for(config):
        done = mine(config, dataset)
    print(
        f"{done.column}: {done.pictures:,} pictures ({done.mined:,} mined now, {done.embedded:,} embedded now), "
        f"up to {config.top_k} captions each, guard {config.guard_cosine:g}; {done.seconds:.0f} s"
    )
    return 0


def mine(config: Config, dataset: Dataset) -> Summary:
    """Do all of it; what an earlier run has finished is found and kept."""
    started = time.monotonic()
    dataset.storage.ensure_writable()
    stage = pair_stage(config, config.embedder)
    plan = NegativePlan(
        embedder=stage.embedder.card, dataset=dataset.digest, top_k=config.top_k, guard_cosine=config.guard_cosine
    )
    missing = lacking(dataset, NEGATIVES, plan.negatives_digest8)
    embedded = stage.complete(config, dataset) if missing else 0
    mined = _search(config, dataset, plan, missing)
    return Summary(
        column=f"{NEGATIVES}-{plan.negatives_digest8}",
        pictures=len(dataset),
        mined=mined,
        embedded=embedded,
        seconds=round(time.monotonic() - started, 2),
    )


def _search(config: Config, dataset: Dataset, plan: NegativePlan, units: Sequence[ShardUnit]) -> int:
    """Run the shards whose negatives are not there yet. Returns how many pictures they hold."""
    mined = 0
    with progress(
        "negatives", total=len(dataset), unit="images", done=len(dataset) - pictures_in(dataset, units)
    ) as bar:
        for outcome in executor_for(config).run(NegativeMiner(plan).begin, units):
            bar.advance(outcome.result)
            mined += outcome.result
    return mined
