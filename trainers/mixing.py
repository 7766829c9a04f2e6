"""What a run draws from: its datasets seen through their views, mixed by weights, and cut into batches."""

from __future__ import annotations

from collections.abc import Mapping

from shards.batching import TokenStream
from shards.costs import Costs
from shards.order import Stream, WeightChange
from shards.reader import Dataset
from shards.stream import source_of
from trainers.assembly import OpenStreams
from trainers.config import TrainConfig
from trainers.task import Task


def lay_order(config: TrainConfig, streams: OpenStreams, task: Task) -> Stream:
    """Lay the order of the whole run: pure numbers; of batches by tokens, the indices are read once per dataset.

    Raises:
        ConfigError: sizes, weights or costs that do not fit each other.
    """
    sources = {
        name: source_of(
            dataset,
            task.count,
            weight=config.streams[name].weight,
            view=streams.views.get(name),
            epochs=config.streams[name].epochs,
            group=_group(config.task, dataset),
        )
        for name, dataset in streams.datasets.items()
    }
    mixture = config.mixture
    changes = [WeightChange(step=change.step, weights=change.weights) for change in mixture.changes]
    if config.batch_tokens is not None:
        costs = {
            name: Costs(dataset, task.count, config.tokens, streams.views.get(name))
            for name, dataset in streams.datasets.items()
        }
        return TokenStream(
            sources,
            costs,
            batch_tokens=config.batch_tokens,
            parts=config.batch_parts,
            seed=config.seed,
            window=config.window,
            temperature=mixture.temperature,
            changes=changes,
            until=mixture.until,
        )
    return Stream(
        sources,
        batch_size=config.batch_size,
        seed=config.seed,
        window=config.window,
        lanes=config.lanes,
        temperature=mixture.temperature,
        changes=changes,
        until=mixture.until,
    )


def _group(task: Mapping[str, object], dataset: Dataset) -> str:
    """Task and modality: what may share a micro-batch."""
    kinds = "+".join(sorted(kind for kind, count in dataset.card.media_kinds.items() if count)) or "text"
    return f"{task.get('kind')} of {kinds}"
