"""Retrieval between pictures and texts: embed all, compare by cosine, let the match head re-rank the best candidates.

The protocol is the published one (ViCHA and ALBEF): every picture keeps its `k_test` nearest texts and every text its `k_test`
nearest pictures; those pairs get the match head's class-1 logit, all others stay below them. Whether a result is zero-shot or
fine-tuned is only a matter of which checkpoint is evaluated.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.examples import Paired
from model.family import Embed
from shards.errors import ConfigError, OstrakaError
from shards.reader import Dataset, open_dataset
from shards.sidecar import Sidecar
from trainers.assembly import TrainedRun, open_concepts, open_run
from trainers.augment import EvalView
from trainers.checkpoint import find_checkpoint
from trainers.config import EvaluateConfig
from trainers.distributed import Group, joined_group
from trainers.gallery import Gallery, read_gallery
from trainers.gather import gather_rows, shares
from trainers.recall import best_ranks, chance, recall
from trainers.rerank import Reranked, Scoring, States, match_candidates, reranked

logger = logging.getLogger(__name__)

NAMED = 10  # candidates that predictions.jsonl names per query
SCORES = "scores.json"
PREDICTIONS = "predictions.jsonl"

OnProgress = Callable[[str, int, int], object]  # stage ("images", "texts", "match"), done, of how many


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


def _silent(stage: str, done: int, total: int) -> None:
    return None


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


@torch.no_grad()
def evaluate(config: EvaluateConfig, *, on_progress: OnProgress = _silent) -> Scores:
    """Evaluate retrieval both ways and write scores.json and predictions.jsonl into `config.output`.

    Under `torchrun` the ranks share the work; every score is bit for bit that of one process, and rank 0 writes.

    Raises:
        ConfigError: the model cannot be compared by cosine, or its concepts are missing.
        CheckpointError: there is no complete checkpoint.
        DatasetError: a record is damaged or has no caption: an evaluation drops nothing.
    """
    with joined_group(config.device) as group:
        scores = _evaluated(config, group, on_progress if group.is_main else _silent)
        group.barrier()
    return scores


def _evaluated(config: EvaluateConfig, group: Group, on_progress: OnProgress) -> Scores:
    with group.together():
        run = open_run(config.checkpoint, device=group.device)
        if Paired not in run.family.serves:
            raise ConfigError(
                f"{config.checkpoint}: family {run.config.family['kind']!r} has no paired embeddings to compare"
            )
        dataset = open_dataset(config.dataset, annotations=config.annotations, cache=config.cache)
        gallery = read_gallery(dataset, _concepts(config, run, dataset), limit=config.limit)
    relevant = gallery.relevant()
    clock = _Clock()
    with _autocast(config, group.device):
        states, own = _embed(run, gallery, config, group, on_progress)
        similarity = states.similarity().float().cpu()
        clock.lap("embed")
        found = Reranked(image_to_text=similarity, text_to_image=similarity.T)
        if config.k_test:
            found = _rerank(run, states, own, config, group, on_progress=on_progress)
            clock.lap("match")
    scores = Scores(
        metrics=recall(found.image_to_text, found.text_to_image, relevant).as_metrics(),
        chance=chance(relevant).as_metrics(),
        cosine=recall(similarity, similarity.T, relevant).as_metrics(),
        images=len(gallery.keys),
        texts=len(gallery.texts),
        k_test=config.k_test,
        scoring=config.scoring,
        checkpoint=str(run.checkpoint.path),
        step=run.checkpoint.step,
        seconds=clock.laps,
    )
    with group.together():
        if group.is_main:
            _write(Path(config.output), scores, _predictions(gallery, found, relevant))
    return scores


def _concepts(config: EvaluateConfig, run: TrainedRun, dataset: Dataset) -> Sidecar | None:
    """Open the concepts that the model is to see: those asked for, else the column that it was trained with."""
    trained_with = [stream.concepts for stream in run.config.streams.values() if stream.concepts is not None]
    wanted = config.concepts or (trained_with[0].split("-")[0] if trained_with else None)
    return open_concepts(dataset, wanted) if wanted is not None else None


def _autocast(config: EvaluateConfig, device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast(device.type, dtype=torch.bfloat16) if config.precision == "bf16" else nullcontext()


def _embed(
    run: TrainedRun, gallery: Gallery, config: EvaluateConfig, group: Group, on_progress: OnProgress
) -> tuple[States, Sequence[int]]:
    """Run both towers once over the gallery, each rank over its share; states stay on the device.

    Returns:
        The states, of pictures only those of this rank, and the numbers of these pictures.
    """
    view = EvalView(run.processor.view.image_size)
    image_shares = shares(group, total=len(gallery.keys), size=config.batch_size)
    text_shares = shares(group, total=len(gallery.texts), size=config.batch_size)
    images, texts = [], []
    with group.together():  # a damaged picture stops every rank, with its name
        for chosen in image_shares:
            examples = gallery.picture_examples(view, chosen)
            batch = run.processor(examples, [0] * len(examples), train=False).to(group.device)
            images.append(run.family.predict(batch, Embed(images=True, texts=False)))
            on_progress("images", chosen.stop, len(gallery.keys))
        for chosen in text_shares:
            examples = gallery.text_examples(chosen)
            batch = run.processor(examples, [0] * len(examples), train=False).to(group.device)
            texts.append(run.family.predict(batch, Embed(images=False, texts=True)))
            on_progress("texts", chosen.stop, len(gallery.texts))
    own_images = [image for share in image_shares for image in share]
    own_texts = [text for share in text_shares for text in share]

    def of_all_texts(parts: Sequence[Tensor]) -> Tensor:
        return gather_rows(group, parts, own_texts, total=len(gallery.texts))

    features = [part.image_features for part in images]
    return (
        States(
            image_features=gather_rows(group, features, own_images, total=len(gallery.keys)),
            image_states=torch.cat([part.image_states for part in images]) if images else torch.empty(0),
            text_features=of_all_texts([part.text_features for part in texts]),
            text_states=of_all_texts([part.text_states for part in texts]),
            text_mask=of_all_texts([part.text_mask for part in texts]),
        ),
        own_images,
    )


def _rerank(
    run: TrainedRun,
    states: States,
    own: Sequence[int],
    config: EvaluateConfig,
    group: Group,
    *,
    on_progress: OnProgress,
) -> Reranked:
    """Match the candidates of this rank's pictures, and put the scores of all ranks together."""
    with group.together():
        scores = match_candidates(
            run.family,  # type: ignore[arg-type]  # a family that embeds pairs also matches them
            states,
            own,
            k=config.k_test,
            pairs_per_pass=config.match_batch_size,
            scoring=config.scoring,
            on_image=lambda done: on_progress("match", done, len(own)),
        )
    similarity = states.similarity()
    found = reranked(similarity, gather_rows(group, [scores], own, total=len(similarity)), k=config.k_test)
    return Reranked(image_to_text=found.image_to_text.float().cpu(), text_to_image=found.text_to_image.float().cpu())


def _predictions(gallery: Gallery, found: Reranked, relevant: Tensor) -> Iterator[dict[str, Any]]:
    """Describe each query with its best candidates and the rank of its truth (0 is first)."""
    ranks = best_ranks(found.text_to_image, relevant.T).tolist()
    for number, (scores, places) in enumerate(_best(found.text_to_image)):
        text = gallery.texts[number]
        key = gallery.keys[text.image]
        yield {
            "direction": "text_to_image",
            "query": {"key": key, "annotation": text.annotation, "text": text.text},
            "truth": [key],
            "rank": ranks[number],
            "ranked": [
                {"key": gallery.keys[place], "score": round(score, 5)}
                for score, place in zip(scores, places, strict=True)
            ],
        }
    ranks = best_ranks(found.image_to_text, relevant).tolist()
    own: dict[int, list[int]] = {}
    for text in gallery.texts:
        own.setdefault(text.image, []).append(text.annotation)
    for number, (scores, places) in enumerate(_best(found.image_to_text)):
        yield {
            "direction": "image_to_text",
            "query": {"key": gallery.keys[number]},
            "truth": own[number],
            "rank": ranks[number],
            "ranked": [_named(gallery, place, score) for score, place in zip(scores, places, strict=True)],
        }


def _named(gallery: Gallery, place: int, score: float) -> dict[str, Any]:
    text = gallery.texts[place]
    return {
        "key": gallery.keys[text.image],
        "annotation": text.annotation,
        "text": text.text,
        "score": round(score, 5),
    }


def _best(scores: Tensor) -> Iterator[tuple[Sequence[float], Sequence[int]]]:
    top = scores.topk(min(NAMED, scores.shape[1]), dim=1)
    return zip(top.values.tolist(), top.indices.tolist(), strict=True)


def _write(output: Path, scores: Scores, predictions: Iterator[dict[str, Any]]) -> None:
    """Write both files beside and rename them, the scores last: they say that the evaluation is complete."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        unfinished = output / f".{PREDICTIONS}-{os.getpid()}"
        with unfinished.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
        unfinished.replace(output / PREDICTIONS)
        unfinished = output / f".{SCORES}-{os.getpid()}"
        unfinished.write_text(json.dumps(scores.to_json(), indent=1) + "\n", encoding="utf-8")
        unfinished.replace(output / SCORES)
    except OSError as error:
        raise OstrakaError(f"{output}: the scores cannot be written there ({error}); choose another output") from error


class _Clock:
    """Wall time per stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.laps[stage] = now - self._since
        self._since = now
