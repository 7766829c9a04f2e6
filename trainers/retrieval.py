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
from trainers.rerank import DIRECTIONS, Direction, PairMatcher, Reranked, match_picture, reranked, wanted_pairs
from trainers.states import PackedTexts


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How well pictures and texts fit, on the CPU."""

    cosine: Tensor  # (images, texts)
    found: Reranked  # the cosines themselves where nothing was re-ranked; only the asked directions mean anything
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
        cosine = similarity.float().cpu()
        seconds["embed"] = time.monotonic() - began
        found = Reranked(image_to_text=cosine, text_to_image=cosine.T)
        if config.k_test:
            began = time.monotonic()
            wanted = wanted_pairs(similarity, config.k_test, directions)
            texts = towers.text_states(features.lengths, wanted.any(dim=0))
            matcher = cast(PairMatcher, run.family)
            scores = _match(matcher, towers, texts, wanted, similarity, config=config, crew=crew)
            found = reranked(similarity, scores, k=config.k_test)
            found = Reranked(
                image_to_text=found.image_to_text.float().cpu(), text_to_image=found.text_to_image.float().cpu()
            )
            seconds["match"] = time.monotonic() - began
    return Compared(cosine=cosine, found=found, seconds=seconds)


def nearest_rows(
    gallery: Gallery, found: Reranked, direction: Direction, *, named: int
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Describe each query of a direction, and what is nearest to it, best first, with its score."""
    by_text = direction == "text_to_image"
    table = found.text_to_image if by_text else found.image_to_text
    pictures = [{"key": key} for key in gallery.keys]
    queries: Sequence[str | GalleryText] = gallery.texts if by_text else gallery.keys
    best = table.topk(min(named, table.shape[1]), dim=1)
    for query, scores, places in zip(queries, best.values.tolist(), best.indices.tolist(), strict=True):
        ranked = [
            {**(pictures[place] if by_text else gallery.texts[place].address()), "score": round(score, 5)}
            for score, place in zip(scores, places, strict=True)
        ]
        yield (query.address() if isinstance(query, GalleryText) else {"key": query}), ranked


def _match(
    matcher: PairMatcher,
    towers: GalleryTowers,
    texts: PackedTexts,
    wanted: Tensor,
    similarity: Tensor,
    *,
    config: AskConfig,
    crew: Crew,
) -> Tensor:
    """Match the candidates of this rank's pictures, and put the scores of all ranks together.

    Args:
        matcher: the family, in evaluation mode.
        towers: give the states of pictures.
        texts: states of all texts that are anybody's candidates.
        wanted: (images, texts) bool, the candidates.
        similarity: (images, texts) cosines.
        config: how many pairs go at a time, and what they score.
        crew: who shares the work.

    Returns:
        (images, texts): 0 where a pair is no candidate.
    """
    own = sum(len(batch) for batch in towers.image_batches)
    ends = wanted.sum(dim=1).cumsum(0)  # of each picture's scores among those of all, one picture after the other
    scores, places, done = [], [], 0
    crew.say("match", done, own)
    with crew.group.together():
        for batch in towers.image_batches:
            counts = wanted[batch.start : batch.stop].sum(dim=1).tolist()
            states = towers.picture_states(batch) if any(counts) else None
            for number, image in enumerate(batch):
                if states is not None and counts[number]:
                    found = match_picture(
                        matcher,
                        states[number : number + 1],
                        wanted[image].nonzero().squeeze(1),
                        texts,
                        similarity[image],
                        pairs_per_pass=config.match_batch_size,
                        scoring=config.scoring,
                    )
                    scores.append(found)
                done += 1
                crew.say("match", done, own)
            last = int(ends[batch.stop - 1])
            places.append(torch.arange(last - sum(counts), last))
    total = int(ends[-1])
    every = gather_rows(crew.group, scores, torch.cat(places) if places else [], total=total)
    return torch.zeros_like(similarity).masked_scatter_(wanted, every)
