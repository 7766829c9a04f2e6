"""Comparing pictures with texts: embed all, take the nearest by cosine, let the match head re-rank them.

The protocol is the published one (ViCHA and ALBEF): every picture keeps its `k_test` nearest texts and every text its `k_test`
nearest pictures; those pairs get the match head's class-1 logit, all others stay below them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from model.examples import Paired
from shards.errors import ConfigError
from trainers.assembly import TrainedRun
from trainers.checkpoint import STATE
from trainers.config import AskConfig
from trainers.embedding import Features, GalleryTowers
from trainers.exam import Crew, mixed_precision
from trainers.gallery import Gallery, GalleryText
from trainers.matching import Matching
from trainers.pair_scores import Cosines, PairScores, Reranked, row_blocks
from trainers.rerank import DIRECTIONS, Direction, PairMatcher, candidate_pairs
from trainers.score_parts import ScoreParts


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How well pictures and texts fit, on the CPU."""

    cosines: Cosines
    found: PairScores  # the cosines themselves where nothing was re-ranked; else of the asked directions only
    seconds: Mapping[str, float]  # wall time of each stage


def check_compares(config: AskConfig, run: TrainedRun) -> None:
    """Make sure that a model embeds pairs and matches them.

    Raises:
        ConfigError: it does not.
    """
    if Paired not in run.family.serves or not isinstance(run.family, PairMatcher):
        raise ConfigError(
            f"checkpoint={config.checkpoint!r}: its {run.config.family['kind']!r} model compares no pictures with texts; "
            "name a run of pretraining or retrieval, or fine-tune this one"
        )


@torch.no_grad()
def compare(
    run: TrainedRun,
    gallery: Gallery,
    *,
    config: AskConfig,
    crew: Crew,
    directions: Sequence[Direction] = DIRECTIONS,
) -> Compared:
    """Compare every picture of a gallery with every text, each rank its share; every rank gets all of it.

    A rank holds seven bytes of every pair, its cosine and marks, and twelve more of a pair that is re-ranked; beside them
    `config.state_bytes` and what a batch takes. Scores of re-ranked pairs are kept below `config.output` until `drop_parts` is
    called, so that the same comparison goes on where it was interrupted.

    Raises:
        DamagedRecordError: a picture cannot be read; it stops every rank, with its name.
        OstrakaError: there is no room on the disk.
    """
    seconds: dict[str, float] = {}
    towers = GalleryTowers(run, gallery, config=config, crew=crew)
    with mixed_precision(config, crew.group.device):
        began = time.monotonic()
        features = towers.features()
        similarity = features.similarity()
        cosines = Cosines(similarity.cpu())
        seconds["embed"] = time.monotonic() - began
        found: PairScores = cosines
        if config.k_test:
            began = time.monotonic()
            chosen = candidate_pairs(similarity, config.k_test, directions)
            matching = Matching(
                matcher=cast(PairMatcher, run.family),
                towers=towers,
                lengths=features.lengths,
                similarity=similarity,
                pairs=chosen.pairs,
                config=config,
                crew=crew,
            )
            scores = matching.scores(_parts(run, features, chosen.pairs, config))
            found = Reranked(cosines, chosen.cpu(), scores.cpu())
            seconds["match"] = time.monotonic() - began
    return Compared(cosines=cosines, found=found, seconds=seconds)


def nearest_rows(
    gallery: Gallery, found: PairScores, direction: Direction, *, named: int
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Describe each query of a direction, and what is nearest to it, best first, with its score."""
    by_text = direction == "text_to_image"
    pictures = [{"key": key} for key in gallery.keys]
    queries: Sequence[str | GalleryText] = gallery.texts if by_text else gallery.keys
    for chosen, rows in row_blocks(found, direction):
        best = rows.topk(min(named, rows.shape[1]), dim=1)
        for number, scores, places in zip(chosen, best.values.tolist(), best.indices.tolist(), strict=True):
            query = queries[number]
            ranked = [
                {**(pictures[place] if by_text else gallery.texts[place].address()), "score": round(score, 5)}
                for score, place in zip(scores, places, strict=True)
            ]
            yield (query.address() if isinstance(query, GalleryText) else {"key": query}), ranked


def _parts(run: TrainedRun, features: Features, pairs: Tensor, config: AskConfig) -> ScoreParts:
    """Find the scores that an interrupted comparison of the same things has left."""
    how = [config.precision, config.scoring, config.batch_size, config.match_batch_size]
    weights = (run.checkpoint.path / STATE).read_bytes()  # which names their checksum
    return ScoreParts(
        None if config.output is None else Path(config.output),
        made_from=(features.images, features.texts, features.lengths, pairs, weights, repr(how).encode()),
    )
