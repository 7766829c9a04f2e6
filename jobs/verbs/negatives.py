"""What a picture does not show: hard captions by CLIP, captions with words exchanged, or pools to draw from."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from concepts.caption_index import load_faiss
from concepts.embed import EmbedderConfig
from concepts.negative_column import NEGATIVES, NegativeMiner, NegativePlan, with_search
from concepts.negative_search import Breadth
from concepts.nouns import ShardUnit
from concepts.phrases import PhraseConfig
from concepts.swaps import KINDS
from jobs.caption_swaps import swap_captions
from jobs.executors import ExecutorConfig, cluster_for, executor_for
from jobs.negative_pools import make_pools
from jobs.pair_embeddings import as_they_are, lacking, pair_stage, pictures_in, require_captions
from jobs.progress import progress
from shards.reader import Dataset, open_dataset

EXACT_PAIRS = 10**11  # of pictures and captions, up to which the search is exact unless something else is said
SAMPLED = 256  # pictures over which recall is measured

logger = logging.getLogger(__name__)

HELP = "wrong captions for each picture: of others, nearest by CLIP, or its own with words exchanged; or pools to draw from"


class Config(ExecutorConfig):
    """Which negatives to make, and of what."""

    dataset: str
    """pictures with captions; `pools` also takes questions and boxes"""
    kind: Literal["hard", "pools", "swaps"] = "hard"
    """`hard`: the captions of other pictures that CLIP finds nearest; `pools`: captions, objects and answers by type to draw
    from, as OFA and UnIVAL do; `swaps`: each caption made wrong by the exchange of an object, an attribute or a relation"""
    embedder: EmbedderConfig = EmbedderConfig()
    top_k: PositiveInt = 10
    """hard captions per picture"""
    guard_cosine: float = Field(0.9, ge=-1, le=1)
    """a caption closer than this to one of the picture's own captions (cosine of text embeddings) may be true of it: left out"""
    guard_picture: float = Field(0.95, ge=-1, le=1)
    """so may the captions of a picture that is closer than this (cosine of image embeddings): left out; 1: no such guard"""
    search: Literal["exact", "approximate"] | None = None
    """`exact`: every picture with every caption; `approximate`: by an index of faiss; unset: exact up to 10^11 pairs, which at 512
    dimensions are about half an hour of one core"""
    recall: float = Field(0.95, gt=0, le=1)
    """of an approximate search: it looks as far as it takes to find this share of the exact negatives of a sample of pictures"""
    max_captions: PositiveInt = 1_000_000
    """of the pool of captions"""
    files: str | None = None
    """a folder with all_captions.txt, object.txt or type2ans.json: each that is there takes the place of the dataset's own pool"""
    output: str | None = None
    """a folder that also gets the three files of the pools"""
    phrases: PhraseConfig = PhraseConfig()
    """how the words of captions are told apart, for swaps"""
    min_seen: PositiveInt = 2
    """captions of the dataset in which words come together before a swap may bring them together"""
    seed: NonNegativeInt = 0
    """chooses among the swaps that are possible"""

    @field_validator("embedder")
    @classmethod
    def _captions_stand_alone(cls, embedder: EmbedderConfig) -> EmbedderConfig:
        return as_they_are(embedder)

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Config:
        options = {
            "hard": {"embedder", "top_k", "guard_cosine", "guard_picture", "search", "recall"},
            "pools": {"max_captions", "files", "output"},
            "swaps": {"phrases", "min_seen", "seed"},
        }
        others = set().union(*options.values()) - options[self.kind]
        idle = sorted(others & self.model_fields_set)
        if idle:
            raise ValueError(f"{idle[0]} has no meaning with kind={self.kind}; leave it out")
        if self.search == "exact" and "recall" in self.model_fields_set:
            raise ValueError("recall has no meaning with search=exact, which finds all; leave it out")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run made."""

    column: str  # negatives-<digest8>
    pictures: int
    mined: int  # the rest had their negatives from an earlier run
    embedded: int  # pictures that went through the model
    breadth: Breadth | None  # of an approximate search
    seconds: float


def run(config: Config, *, dry_run: bool) -> int:
    """Make the negatives; print one line with the result."""
    dataset = open_dataset(config.dataset)
    if dry_run:
        rule = {
            "hard": f"{config.embedder.model} ({config.embedder.pretrained}), top {config.top_k}, guard {config.guard_cosine:g}, "
            f"{'approximate' if _is_approximate(config, dataset) else 'exact'} search",
            "pools": f"pools of at most {config.max_captions:,} captions",
            "swaps": f"swaps of words seen together {config.min_seen} times",
        }[config.kind]
        print(
            f"{len(dataset):,} pictures in {len(dataset.manifest)} shards, {dataset.card.annotations:,} annotations; {rule}"
        )
        return 0
    with cluster_for(config):
        print({"hard": _mined_line, "pools": _pools_line, "swaps": _swaps_line}[config.kind](config, dataset))
    return 0


def _mined_line(config: Config, dataset: Dataset) -> str:
    done = mine(config, dataset)
    return (
        f"{done.column}: {done.pictures:,} pictures ({done.mined:,} mined now, {done.embedded:,} embedded now), "
        f"up to {config.top_k} captions each, guard {config.guard_cosine:g}; {_search_said(done.breadth)}; {done.seconds:.0f} s"
    )


def _pools_line(config: Config, dataset: Dataset) -> str:
    done = make_pools(config, dataset, max_captions=config.max_captions, files=config.files, output=config.output)
    return (
        f"{done.column}: {len(done.pools.captions):,} captions, {len(done.pools.objects):,} objects, "
        f"{sum(map(len, done.pools.answers.values())):,} answers of {len(done.pools.answers):,} types; "
        f"{done.with_objects:,} of {len(dataset):,} records name an object"
    )


def _swaps_line(config: Config, dataset: Dataset) -> str:
    done = swap_captions(config, dataset, phrases=config.phrases, min_seen=config.min_seen, seed=config.seed)
    kinds = ", ".join(f"{done.kinds[kind]:,} {kind}" for kind in KINDS)
    return f"{done.column}: {sum(done.kinds.values()):,} wrong captions ({kinds}) by {done.tagger}"


def mine(config: Config, dataset: Dataset) -> Summary:
    """Do all of it; what an earlier run has finished is found and kept."""
    started = time.monotonic()
    dataset.storage.ensure_writable()
    require_captions(dataset)
    stage = pair_stage(config, config.embedder)
    plan = NegativePlan(
        embedder=stage.embedder.card,
        dataset=dataset.digest,
        top_k=config.top_k,
        guard_cosine=config.guard_cosine,
        guard_picture=config.guard_picture,
    )
    embedded = 0
    if _is_approximate(config, dataset):
        load_faiss()  # before hours of embedding, not after them
        embedded = stage.complete(config, dataset)
        plan = with_search(dataset, plan, recall=config.recall, sample=SAMPLED)
    missing = lacking(dataset, NEGATIVES, plan.negatives_digest8)
    if plan.breadth is None:
        embedded = stage.complete(config, dataset) if missing else 0
    elif plan.breadth.recall < config.recall:
        logger.warning(
            "the search finds %.1f %% of the exact negatives however far it looks, less than recall=%g; search=exact finds all",
            100 * plan.breadth.recall,
            config.recall,
        )
    mined = _search(config, dataset, plan, missing)
    return Summary(
        column=f"{NEGATIVES}-{plan.negatives_digest8}",
        pictures=len(dataset),
        mined=mined,
        embedded=embedded,
        breadth=plan.breadth,
        seconds=round(time.monotonic() - started, 2),
    )


def _is_approximate(config: Config, dataset: Dataset) -> bool:
    if config.search is None:
        return len(dataset) * dataset.card.annotations > EXACT_PAIRS
    return config.search == "approximate"


def _search_said(breadth: Breadth | None) -> str:
    if breadth is None:
        return "exact search"
    return (
        f"approximate search with recall {breadth.recall:.3f} over {breadth.sampled} pictures "
        f"({breadth.probes} probes, {breadth.candidates} candidates)"
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
