"""Keep a share of a dataset's captions: as a column that a stream reads as a view, so that nothing is rewritten."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from concepts.annotate import embedding_digest8, stored_vectors
from concepts.embed import EmbedderConfig
from concepts.filters import best_of_all, best_of_each, near_duplicates, with_last_captions
from concepts.similarity import SIMILARITY, SimilarityScorer, similarity_digest8, stored_similarities, write_selection
from jobs.executors import ExecutorConfig, cluster_for, executor_for
from jobs.pair_embeddings import as_they_are, lacking, pair_stage, pictures_in, require_captions
from jobs.progress import progress
from shards.config import digest
from shards.errors import DatasetError
from shards.reader import Dataset, open_dataset

HELP = "keeps a share of the captions by their CLIP similarity, or near duplicates once, as a column that streams select by"

SELECTION = "selection"
SCHEMA = 2  # 1 told neither the cut nor of what a picture is a duplicate

Kept = npt.NDArray[np.bool_]
Similarities = npt.NDArray[np.float32]
Owners = npt.NDArray[np.int64]  # the number of each annotation's picture


class Config(ExecutorConfig):
    """What to keep.

    A fixed cosine needs no filter of its own: once the column `similarity` is there, a stream takes
    `where="similarity > 0.28"`.
    """

    dataset: str
    """pictures with captions"""
    embedder: EmbedderConfig = EmbedderConfig()
    by: Literal["similarity", "duplicates"] = "similarity"
    """`similarity`: of caption and picture, the best are kept; `duplicates`: of nearly equal pictures, the first is kept"""
    keep: float = Field(0.7, gt=0, le=1)
    """share that is kept by similarity, rounded down"""
    per: Literal["dataset", "image"] = "dataset"
    """what the share is of: all captions, or those of each picture"""
    last_caption: Literal["keep", "drop"] = "keep"
    """of a picture that would lose all its captions: keep the best one, or drop the picture"""
    likeness: float = Field(0.95, gt=-1, le=1)
    """of duplicates: cosine of two pictures' embeddings from which they count as one"""
    column: str = Field(SELECTION, pattern=r"[A-Za-z0-9_]+")
    """name of the column, for `streams.<name>.select`"""

    @field_validator("embedder")
    @classmethod
    def _captions_stand_alone(cls, embedder: EmbedderConfig) -> EmbedderConfig:
        return as_they_are(embedder)

    @model_validator(mode="after")
    def _fits_the_rule(self) -> Config:
        other = {"similarity": {"likeness"}, "duplicates": {"keep", "per", "last_caption"}}[self.by]
        idle = sorted(other & self.model_fields_set)
        if idle:
            raise ValueError(f"{idle[0]} has no meaning with by={self.by}; leave it out")
        return self

    @property
    def rule(self) -> dict[str, Any]:
        """What decides, beside the embeddings."""
        names = ("keep", "per", "last_caption") if self.by == "similarity" else ("likeness",)
        return {"by": self.by, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run kept."""

    column: str  # selection-<digest8>
    captions: int
    kept: int
    pictures: int
    pictures_kept: int
    unreadable: int  # pictures without an embedding: never kept
    lowest: float | None  # similarity of what is kept
    groups: int | None  # of pictures that are nearly the same; None where nothing was asked about them
    seconds: float


def run(config: Config, *, dry_run: bool) -> int:
    """Filter the dataset; print one line with the result."""
    dataset = open_dataset(config.dataset)
    if dry_run:
        rule = ", ".join(f"{name}={value}" for name, value in config.rule.items())
        print(
            f"{len(dataset):,} pictures in {len(dataset.manifest)} shards, {dataset.card.annotations:,} annotations; "
            f"{rule}; {config.embedder.model} ({config.embedder.pretrained})"
        )
        return 0
    with cluster_for(config):
        done = choose(config, dataset)
    said = "captions" if config.by == "similarity" else "annotations"
    lowest = "" if done.lowest is None else f", similarity from {done.lowest:.4f}"
    groups = "" if done.groups is None else f", {done.groups:,} groups of near duplicates"
    unreadable = f", {done.unreadable:,} pictures could not be read" if done.unreadable else ""
    print(
        f"{done.column}: {done.kept:,} of {done.captions:,} {said} and {done.pictures_kept:,} of {done.pictures:,} pictures "
        f"kept{lowest}{groups}{unreadable}; {done.seconds:.0f} s; train with streams.<name>.select={done.column}"
    )
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """What a rule chose of a dataset's M annotations and N pictures."""

    kept: Kept  # (M,)
    unreadable: int
    similarities: Similarities | None = None  # (M,)
    duplicate_of: list[str | None] | None = None  # of N


def choose(config: Config, dataset: Dataset) -> Summary:
    """Do all of it; what an earlier run has finished is found and kept."""
    started = time.monotonic()
    dataset.storage.ensure_writable()
    if config.by == "similarity":
        require_captions(dataset)
    stage = pair_stage(config, config.embedder)
    embedder = stage.embedder.card
    stage.complete(config, dataset, with_captions=config.by == "similarity")
    owners = _owners(dataset)
    rule = {"similarity": _by_similarity, "duplicates": _by_duplicates}[config.by]
    choice = rule(config, dataset, embedder, owners)
    if not choice.kept.any():
        raise DatasetError(f"{dataset.path}: nothing would be kept; raise keep, or set last_caption=keep")
    card = {"schema": SCHEMA, "embedder": embedder, "dataset": dataset.digest, "rule": config.rule}
    digest8 = digest({"column": config.column, **card})[:8]
    groups = None if choice.duplicate_of is None else len(set(choice.duplicate_of) - {None})
    kept = int(choice.kept.sum())
    outcome = {"captions": len(owners), "kept": kept, "cut": _cut(config, choice.similarities), "groups": groups}
    write_selection(
        dataset,
        choice.kept,
        column=config.column,
        digest8=digest8,
        card={**card, "outcome": outcome},
        duplicate_of=choice.duplicate_of,
    )
    return Summary(
        column=f"{config.column}-{digest8}",
        captions=len(owners),
        kept=kept,
        pictures=len(dataset),
        pictures_kept=len(np.unique(owners[choice.kept])),
        unreadable=choice.unreadable,
        lowest=None if choice.similarities is None else float(np.nanmin(choice.similarities[choice.kept])),
        groups=groups,
        seconds=round(time.monotonic() - started, 2),
    )


def _by_similarity(config: Config, dataset: Dataset, embedder: dict[str, Any], owners: Owners) -> _Choice:
    similarities = _similarities(config, dataset, embedder)
    return _Choice(
        kept=kept_by_similarity(config, similarities, owners),
        similarities=similarities,
        unreadable=len(np.unique(owners[np.isnan(similarities)])),
    )


def _by_duplicates(config: Config, dataset: Dataset, embedder: dict[str, Any], owners: Owners) -> _Choice:
    """Keep the first of pictures that are nearly the same, whatever is said about them."""
    digest8 = embedding_digest8(embedder)
    parts = [stored_vectors(dataset, shard, digest8) for shard in range(len(dataset.manifest))]
    vectors = np.concatenate([part for part in parts if part is not None])
    first = near_duplicates(vectors, likeness=config.likeness)
    readable = np.isfinite(vectors).all(axis=1)
    keys = [key for shard in range(len(dataset.manifest)) for key in dataset.index(shard).keys]
    return _Choice(
        kept=((first == np.arange(len(first))) & readable)[owners],
        unreadable=int((~readable).sum()),
        duplicate_of=[None if place == own else keys[place] for own, place in enumerate(first.tolist())],
    )


def kept_by_similarity(config: Config, similarities: Similarities, groups: Owners) -> Kept:
    """Say of each caption whether it is kept: (M,) similarities and pictures → (M,)."""
    if config.per == "image":
        places = best_of_each(similarities, groups, config.keep, keep_one=config.last_caption == "keep")
    else:
        places = best_of_all(similarities, config.keep)
    kept = np.zeros(len(groups), np.bool_)
    kept[places] = True
    return with_last_captions(kept, similarities, groups) if config.last_caption == "keep" else kept


def _similarities(config: Config, dataset: Dataset, embedder: dict[str, Any]) -> Similarities:
    """The (M,) cosines of all captions of the dataset, in its order; made where they are missing."""
    digest8 = similarity_digest8(embedder)
    units = lacking(dataset, SIMILARITY, digest8)
    done = len(dataset) - pictures_in(dataset, units)
    with progress("similarity", total=len(dataset), unit="images", done=done) as bar:
        for outcome in executor_for(config).run(SimilarityScorer(embedder).begin, units):
            bar.advance(outcome.result)
    return np.concatenate([stored_similarities(dataset, shard, digest8) for shard in range(len(dataset.manifest))])


def _owners(dataset: Dataset) -> Owners:
    """The number of each annotation's picture in the dataset: (M,)."""
    counts = np.concatenate([dataset.index(shard).annotations for shard in range(len(dataset.manifest))])
    return np.repeat(np.arange(len(counts), dtype=np.int64), counts)


def _cut(config: Config, similarities: Similarities | None) -> float | None:
    """The similarity from which captions are in the share that is kept of the dataset; None where no one number says it."""
    if similarities is None or config.per != "dataset":
        return None
    places = best_of_all(similarities, config.keep)
    return float(similarities[places[-1]]) if len(places) else None
