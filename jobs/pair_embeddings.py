"""The embeddings of a dataset's pictures and captions, made where they are missing: what negatives and filters stand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from concepts.annotate import EMBEDDING, embedding_digest8
from concepts.caption_column import CAPTION_EMBEDDING, PairEmbedder, caption_digest8
from concepts.embed import ClipEmbedder, EmbedderConfig
from concepts.nouns import ShardUnit
from jobs.executors import ExecutorConfig, executor_for
from jobs.progress import progress
from jobs.verbs.concepts import with_absolute_weights
from shards.errors import DatasetError
from shards.reader import Dataset
from shards.sidecar import sidecar_shards


@dataclass(frozen=True, slots=True)
class PairStage:
    """A model at hand, and how it is loaded elsewhere."""

    settings: EmbedderConfig
    embedder: ClipEmbedder

    def complete(self, config: ExecutorConfig, dataset: Dataset, *, with_captions: bool = True) -> int:
        """Embed every shard that lacks its pictures or, where they are wanted, its captions.

        Returns:
            How many pictures went through the model.
        """
        card = self.embedder.card
        missing = {*lacking(dataset, EMBEDDING, embedding_digest8(card))}
        if with_captions:
            missing |= {*lacking(dataset, CAPTION_EMBEDDING, caption_digest8(card))}
        units = sorted(missing, key=lambda unit: unit.shard)
        work = PairEmbedder(self.settings, card, embedder=self.embedder, with_captions=with_captions)
        resources = {"GPU": 1.0} if self.settings.device == "cuda" else None
        embedded, done = 0, len(dataset) - pictures_in(dataset, units)
        with progress("embeddings", total=len(dataset), unit="images", done=done) as bar:
            for outcome in executor_for(config).run(work.begin, units, resources=resources, stateful=True):
                bar.advance(pictures_in(dataset, [outcome.unit]))
                embedded += outcome.result
        return embedded


def pair_stage(config: ExecutorConfig, embedder: EmbedderConfig) -> PairStage:
    """Load the model; where GPUs are on the workers alone, the driver makes do with its processor for name and digest."""
    settings = with_absolute_weights(embedder)
    here = settings.model_copy(update={"device": "auto"} if config.executor == "ray" else {})
    return PairStage(settings=settings, embedder=ClipEmbedder(here))


def require_captions(dataset: Dataset) -> None:
    """Refuse a dataset before hours of work on it, where none of its records holds a caption.

    Raises:
        DatasetError: it holds none.
    """
    types = dataset.card.annotation_types
    if types and "caption" not in types:
        raise DatasetError(
            f"{dataset.path} holds annotations of the type {', '.join(sorted(types))} and no caption; give a dataset of captions"
        )


def as_they_are(embedder: EmbedderConfig) -> EmbedderConfig:
    """An embedder of captions, which go into no template.

    Raises:
        ValueError: templates are set.
    """
    if embedder.templates != EmbedderConfig().templates:
        raise ValueError("templates are for concepts; captions are embedded as they are, so leave them unset")
    return embedder


def lacking(dataset: Dataset, column: str, digest8: str) -> list[ShardUnit]:
    """The shards that have no part of a column yet."""
    there = sidecar_shards(dataset.storage, column, digest8)
    return [ShardUnit(dataset.path, shard) for shard, entry in enumerate(dataset.manifest) if entry.name not in there]


def pictures_in(dataset: Dataset, units: Sequence[ShardUnit]) -> int:
    """How many pictures some shards hold."""
    return sum(dataset.manifest[unit.shard].records for unit in units)
