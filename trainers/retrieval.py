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
from model.family import Embed
from shards.errors import ConfigError
from trainers.assembly import TrainedRun
from trainers.augment import EvalView
from trainers.config import AskConfig
from trainers.exam import Crew, mixed_precision
from trainers.gallery import Gallery, GalleryText
from trainers.gather import gather_rows
from trainers.rerank import DIRECTIONS, Direction, PairMatcher, Reranked, States, match_candidates, reranked


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
    with mixed_precision(config, crew.group.device):
        began = time.monotonic()
        states, own = _embed(run, gallery, config, crew)
        similarity = states.similarity().float().cpu()
        seconds["embed"] = time.monotonic() - began
        found = Reranked(image_to_text=similarity, text_to_image=similarity.T)
        if config.k_test:
            began = time.monotonic()
            found = _rerank(run, states, own, config=config, crew=crew, directions=directions)
            seconds["match"] = time.monotonic() - began
    return Compared(cosine=similarity, found=found, seconds=seconds)


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


def _embed(run: TrainedRun, gallery: Gallery, config: AskConfig, crew: Crew) -> tuple[States, Sequence[int]]:
    """Run both towers once over the gallery, each rank over its share; states stay on the device.

    Returns:
        The states, of pictures only those of this rank, and the numbers of these pictures.
    """
    group = crew.group
    view = EvalView(run.processor.view.image_size)
    image_shares = crew.share(range(len(gallery.keys)), size=config.batch_size)
    text_shares = crew.share(range(len(gallery.texts)), size=config.batch_size)
    images, texts = [], []
    with group.together():  # a damaged picture stops every rank, with its name
        crew.say("images", 0, len(gallery.keys))
        for chosen in image_shares:
            examples = gallery.picture_examples(view, chosen)
            batch = run.processor(examples, [0] * len(examples), train=False).to(group.device)
            images.append(run.family.predict(batch, Embed(images=True, texts=False)))
            crew.say("images", chosen.stop, len(gallery.keys))
        crew.say("texts", 0, len(gallery.texts))
        for chosen in text_shares:
            examples = gallery.text_examples(chosen)
            batch = run.processor(examples, [0] * len(examples), train=False).to(group.device)
            texts.append(run.family.predict(batch, Embed(images=False, texts=True)))
            crew.say("texts", chosen.stop, len(gallery.texts))
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
    *,
    config: AskConfig,
    crew: Crew,
    directions: Sequence[Direction],
) -> Reranked:
    """Match the candidates of this rank's pictures, and put the scores of all ranks together."""
    crew.say("match", 0, len(own))
    with crew.group.together():
        scores = match_candidates(
            cast(PairMatcher, run.family),
            states,
            own,
            k=config.k_test,
            pairs_per_pass=config.match_batch_size,
            scoring=config.scoring,
            directions=directions,
            on_image=lambda done: crew.say("match", done, len(own)),
        )
    similarity = states.similarity()
    scores = gather_rows(crew.group, [scores], own, total=len(similarity))
    found = reranked(similarity, scores, k=config.k_test)
    return Reranked(image_to_text=found.image_to_text.float().cpu(), text_to_image=found.text_to_image.float().cpu())
