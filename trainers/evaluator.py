"""Retrieval between pictures and texts, scored: recall both ways, beside cosine alone and chance.

Whether a result is zero-shot or fine-tuned is only a matter of which checkpoint is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from shards.reader import open_dataset
from trainers.assembly import open_run
from trainers.checkpoint import find_checkpoint
from trainers.config import EvaluateConfig
from trainers.distributed import Group, joined_group
from trainers.exam import Crew, OnProgress, shown_concepts, silent
from trainers.gallery import Gallery, read_gallery
from trainers.pair_scores import PairScores, truth_ranks
from trainers.recall import chance, recall
from trainers.rerank import DIRECTIONS, Direction, Scoring
from trainers.results import ensure_writable, write_results
from trainers.retrieval import check_compares, compare, nearest_rows
from trainers.score_parts import drop_parts

NAMED = 10  # candidates that predictions.jsonl names per query


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What an evaluation found; percentages. `metrics` are re-ranked unless `k_test` is 0."""

    metrics: Mapping[str, float]
    chance: Mapping[str, float]
    cosine: Mapping[str, float]
    images: int
    texts: int
    k_test: int
    scoring: Scoring
    dataset: str
    annotations: str | None  # the column that took the place of the dataset's own
    checkpoint: str
    step: int
    seconds: Mapping[str, float]  # wall time of each stage

    def to_json(self) -> dict[str, Any]:
        return {
            "metrics": dict(self.metrics),
            "chance": dict(self.chance),
            "cosine": dict(self.cosine),
            "images": self.images,
            "texts": self.texts,
            "k_test": self.k_test,
            "scoring": self.scoring,
            "dataset": self.dataset,
            "annotations": self.annotations,
            "checkpoint": self.checkpoint,
            "step": self.step,
            "seconds": {stage: round(seconds, 2) for stage, seconds in self.seconds.items()},
        }

    def table(self) -> str:
        """Lay the recalls beside cosine alone and chance, for a terminal."""
        columns = [("re-ranked", self.metrics), ("cosine", self.cosine), ("chance", self.chance)]
        columns = columns if self.k_test else columns[1:]
        rows = [f"{self.images:,} pictures, {self.texts:,} texts, step {self.step:,} of {self.checkpoint}"]
        rows.append(" " * 20 + "".join(f"{title:>12}" for title, _ in columns))
        for name in self.metrics:
            label = name.replace("image_to_text", "image→text").replace("text_to_image", "text→image")
            label = label.replace("_mean", " mean").replace("_r", " R@") if name != "r_mean" else "mean of both"
            rows.append(f"{label:<20}" + "".join(f"{values[name]:>11.2f}%" for _, values in columns))
        return "\n".join(rows)


def plan(config: EvaluateConfig) -> str:
    """Say in one line what an evaluation would compare; loads no weights, writes nothing."""
    checkpoint, dataset = (
        find_checkpoint(Path(config.checkpoint)),
        open_dataset(config.dataset, annotations=config.annotations, cache=config.cache),
    )
    return (
        f"step {checkpoint.step:,} of {checkpoint.run} on {len(dataset):,} records of {dataset.path}, "
        f"{f'the best {config.k_test} re-ranked' if config.k_test else 'cosine only'} -> {config.output}"
    )


def evaluate(config: EvaluateConfig, *, on_progress: OnProgress = silent) -> Scores:
    """Evaluate retrieval both ways and write scores.json and predictions.jsonl into `config.output`.

    Under `torchrun` the ranks share the work; every score is bit for bit that of one process, and rank 0 writes. Of an
    interrupted evaluation the same command goes on with the pairs that are not matched yet.

    Raises:
        ConfigError: the model cannot be compared by cosine, or its concepts are missing.
        CheckpointError: there is no complete checkpoint.
        DatasetError: a record is damaged or has no caption: an evaluation drops nothing.
    """
    with joined_group(config.device) as group:
        scores = _evaluated(config, group, on_progress)
        group.barrier()
    return scores


def _evaluated(config: EvaluateConfig, group: Group, on_progress: OnProgress) -> Scores:
    with group.together():
        run = open_run(config.checkpoint, device=group.device)
        check_compares(config, run)
        dataset = open_dataset(config.dataset, annotations=config.annotations, cache=config.cache)
        gallery = read_gallery(dataset, shown_concepts(config, run, dataset), limit=config.limit)
        if group.is_main:
            ensure_writable(Path(config.output))
    relevant = gallery.relevant()
    compared = compare(run, gallery, config=config, crew=Crew(group, on_progress))
    ranks = {direction: truth_ranks(compared.found, relevant, direction) for direction in DIRECTIONS}
    by_cosine = {direction: truth_ranks(compared.cosines, relevant, direction) for direction in DIRECTIONS}
    scores = Scores(
        metrics=recall(**ranks).as_metrics(),
        chance=chance(relevant).as_metrics(),
        cosine=recall(**by_cosine).as_metrics(),
        images=len(gallery.keys),
        texts=len(gallery.texts),
        k_test=config.k_test,
        scoring=config.scoring,
        dataset=dataset.path,
        annotations=config.annotations,
        checkpoint=str(run.checkpoint.path),
        step=run.checkpoint.step,
        seconds=compared.seconds,
    )
    with group.together():
        if group.is_main:
            write_results(
                Path(config.output), scores=scores.to_json(), predictions=_predictions(gallery, compared.found, ranks)
            )
    drop_parts(Path(config.output))
    return scores


def _predictions(gallery: Gallery, found: PairScores, ranks: Mapping[Direction, Tensor]) -> Iterator[dict[str, Any]]:
    """Describe each query with its best candidates and the rank of its truth (0 is first)."""
    by_text = nearest_rows(gallery, found, "text_to_image", named=NAMED)
    for (query, ranked), rank in zip(by_text, ranks["text_to_image"].tolist(), strict=True):
        yield {"direction": "text_to_image", "query": query, "truth": [query["key"]], "rank": rank, "ranked": ranked}
    own: dict[int | None, list[int]] = {}
    for text in gallery.texts:
        own.setdefault(text.image, []).append(text.annotation)
    by_image = nearest_rows(gallery, found, "image_to_text", named=NAMED)
    for number, ((query, ranked), rank) in enumerate(zip(by_image, ranks["image_to_text"].tolist(), strict=True)):
        yield {"direction": "image_to_text", "query": query, "truth": own[number], "rank": rank, "ranked": ranked}
