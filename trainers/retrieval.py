"""Comparing pictures with texts: embed all, take the nearest by cosine, let the match head re-rank them.

The protocol is the published one (ViCHA and ALBEF): every picture keeps its `k_test` nearest texts and every text its `k_test`
nearest pictures; those pairs get the match head's class-1 logit, all others stay below them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from model.examples import Paired
from shards.errors import ConfigError
from trainers.assembly import TrainedRun
from trainers.config import AskConfig
from trainers.embedding import GalleryTowers
from trainers.exam import Crew, mixed_precision
from trainers.gallery import Gallery, GalleryText
from trainers.gather import gather_rows
from trainers.pair_scores import Cosines, PairScores, Reranked, row_blocks
from trainers.rerank import DIRECTIONS, Direction, PairMatcher, candidate_pairs, match_picture


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

    Raises:
        DamagedRecordError: a picture cannot be read; it stops every rank, with its name.
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
            scores = _match(run, towers, chosen.pairs, features.lengths, similarity, config=config, crew=crew)
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


def _match(
    run: TrainedRun,
    towers: GalleryTowers,
    pairs: Tensor,
    lengths: Tensor,
    similarity: Tensor,
    *,
    config: AskConfig,
    crew: Crew,
) -> Tensor:
    """Match the candidates of this rank's pictures, and put the scores of all ranks together.

    Args:
        run: whose family matches.
        towers: give the states.
        pairs: (pairs,) all candidates as image * texts + text, ascending.
        lengths: (texts,) tokens of all texts.
        similarity: (images, texts) cosines.
        config: how many pairs go at a time, and what they score.
        crew: who shares the work.

    Returns:
        (pairs,) scores.
    """
    images, texts = similarity.shape
    is_read = torch.zeros_like(lengths, dtype=torch.bool).index_fill_(0, pairs % texts, True)
    text_states = towers.text_states(lengths, is_read)
    first = torch.searchsorted(pairs, torch.arange(images + 1, device=pairs.device) * texts).tolist()
    total, done = sum(len(batch) for batch in towers.image_batches), 0
    scores: list[Tensor] = []
    places: list[Tensor] = []
    crew.say("match", done, total)
    with crew.group.together():
        for batch in towers.image_batches:
            places.append(torch.arange(first[batch.start], first[batch.stop]))
            states = towers.picture_states(batch) if len(places[-1]) else None
            for number, image in enumerate(batch):
                own = pairs[first[image] : first[image + 1]]
                # None is left where only texts ask and this picture is near to none of them.
                if states is not None and len(own):
                    found = match_picture(
                        cast(PairMatcher, run.family),
                        states[number : number + 1],
                        own - image * texts,
                        text_states,
                        similarity[image],
                        pairs_per_pass=config.match_batch_size,
                        scoring=config.scoring,
                    )
                    scores.append(found)
                done += 1
                crew.say("match", done, total)
    return gather_rows(crew.group, scores, torch.cat(places) if places else [], total=len(pairs))
