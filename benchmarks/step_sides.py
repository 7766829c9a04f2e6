"""Our pretraining step and the straight one as sides of a comparison: equal weights, equal inputs, the same optimiser's rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.straight_vicha import PublishedBatch, StraightVicha
from model.families.vicha.batch import PairBatch
from model.families.vicha.config import Config
from model.families.vicha.model import Vicha
from model.families.vicha.published import export_published
from model.family import Losses, Progress
from model.layers.attention import SplitAttention
from trainers.distributed import Group
from trainers.optim import CosineSchedule, Horizon, OptimConfig, build_optimizer
from trainers.step import Precision, TrainStep

ALPHA = 0.4  # share of the twin's soft targets after the first epoch, as published
HORIZON = Horizon(steps=1_000, steps_per_epoch=10)
MASKED_SHARE = 0.15  # of the words, as published
MASK_ID, FIRST_WORD = 103, 1_000  # of BERT's uncased vocabulary
Shape = Literal["base", "small", "tiny"]
SHAPES: dict[Shape, dict[str, Any]] = {
    "base": {},  # as published
    # Half the published widths, at the published size of pictures.
    "small": {
        "vision": {"width": 384, "heads": 6},
        "text": {"width": 384, "heads": 6, "mlp_width": 1_536},
        "masked_image": {"decoder_width": 384},
        "contrast": {"queue_size": 16_384},
    },
    # Any machine steps through it in milliseconds.
    "tiny": {
        "image_size": 32,
        "patch_size": 8,
        "projection": 16,
        "vision": {"width": 24, "depth": 4, "heads": 4},
        "text": {"vocab_size": 1_200, "width": 24, "layers": 4, "fusion_layer": 3, "heads": 4, "mlp_width": 48},
        "hierarchy": {"layers": 2},
        "masked_image": {"decoder_width": 24, "decoder_heads": 4},
        "contrast": {"queue_size": 64},
    },
}


def shape_config(shape: Shape, *, dropout: float | None = None, **parts: Any) -> Config:
    """The family in one of the shapes.

    Args:
        shape: its sizes.
        dropout: of words; unset: as published.
        parts: keys of the config, in place of the shape's own.
    """
    config = SHAPES[shape] | parts
    if dropout is not None:
        config["text"] = {**config.get("text", {}), "dropout": dropout}
    return Config.model_validate(config)


def random_pairs(config: Config, count: int, *, words: int, concepts: int, seed: int) -> PairBatch:
    """Pairs of noise whose captions all have the same length, so that no work goes into padding.

    Args:
        config: of the family.
        count: pairs.
        words: tokens of a caption, the class token included.
        concepts: tokens of a picture's concepts.
        seed: of everything.
    """
    rng = torch.Generator().manual_seed(seed)
    size, vocabulary = config.image_size, config.text.vocab_size

    def ids(length: int) -> Tensor:
        drawn = torch.randint(FIRST_WORD, vocabulary, (count, length), generator=rng)
        drawn[:, 0] = MASK_ID - 2  # the class token
        return drawn

    text, noun_ids = ids(words), ids(concepts)
    hidden = torch.rand(count, words, generator=rng) < MASKED_SHARE
    hidden[:, 0] = False
    hidden[0, 1] = True  # never a batch without any
    positions = hidden.flatten().nonzero().squeeze(1)
    return PairBatch(
        keys=tuple(f"pair-{number}" for number in range(count)),
        pixels=torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=rng),
        text_ids=text,
        text_mask=torch.ones_like(text, dtype=torch.bool),
        identity=torch.full((count,), -1),
        concept_ids=noun_ids if config.concepts is not None else None,
        concept_mask=torch.ones_like(noun_ids, dtype=torch.bool) if config.concepts is not None else None,
        masked_ids=text.masked_fill(hidden, MASK_ID),
        masked_positions=positions,
        masked_targets=text.flatten()[positions],
        patch_noise=torch.rand(count, (size // config.patch_size) ** 2, generator=rng),
        match_noise=torch.rand(count, 2, generator=rng),
    )


def with_given_negatives(batch: PairBatch) -> PairBatch:
    """Fix whom each pair is matched against, so that both sides match the same."""
    others = torch.arange(len(batch), device=batch.text_ids.device)
    return replace(batch, image_negatives=others.roll(1), text_negatives=others.roll(-1))


def as_published(family: Vicha, batch: PairBatch) -> PublishedBatch:
    """The same batch as the published step takes it, its pixels normalised already."""
    assert batch.pixels is not None
    assert batch.masked_ids is not None
    assert batch.masked_positions is not None
    assert batch.masked_targets is not None
    assert batch.patch_noise is not None
    labels = torch.full_like(batch.text_ids, -100).flatten()
    labels[batch.masked_positions] = batch.masked_targets
    return PublishedBatch(
        image=family.normalise(batch.pixels),
        text_input_ids=batch.text_ids,
        text_attention_mask=batch.text_mask.long(),
        mlm_input_ids=batch.masked_ids,
        mlm_labels=labels.view_as(batch.text_ids),
        mim_noise=batch.patch_noise,
        kw_input_ids=batch.concept_ids,
        kw_attention_mask=None if batch.concept_mask is None else batch.concept_mask.long(),
        itm_neg_image_idx=batch.image_negatives,
        itm_neg_text_idx=batch.text_negatives,
    )


def straight_twin_of(family: Vicha) -> StraightVicha:
    """The straight model with the family's weights and queues, every one of them, on its device."""
    model = StraightVicha(family.config)
    weights = {name: value for name, value in export_published(family).items() if "position_ids" not in name}
    model.load_state_dict(weights)
    device = family.temperature.device
    return model.to(device).train()


def our_step(
    family: Vicha, *, precision: Precision = "fp32", compiled: bool = False
) -> Callable[[PairBatch, int], None]:
    """Make one step of our trainer, by its own code and with an optimiser as a run builds it: losses, gradients, AdamW."""
    device = family.temperature.device
    step = TrainStep(
        family,
        build_optimizer(family, OptimConfig(), lr=1e-4),
        schedule=CosineSchedule(lr=1e-4, min_lr=1e-5, warmup_steps=10),
        horizon=HORIZON,
        group=Group(device=device),
        seed=0,
        precision=precision,
        compiled=compiled,
    )

    def run(batch: PairBatch, number: int) -> None:
        step([batch], number + HORIZON.steps_per_epoch)  # past the first epoch: the soft targets count in full

    return run


def set_dropout(model: nn.Module, share: float) -> None:
    """Give every dropout of either model, in attention too, another share."""
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = share
        elif isinstance(part, SplitAttention):
            part.dropout = share


def straight_step(model: StraightVicha) -> Callable[[PublishedBatch], None]:
    """One step of the straight implementation: losses, gradients, AdamW as torch makes it when nothing is asked for."""
    trainable = [value for value in model.parameters() if value.requires_grad]
    decayed = [value for value in trainable if value.ndim > 1]
    spared = [value for value in trainable if value.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.02}, {"params": spared, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4)

    def run(batch: PublishedBatch) -> None:
        optimizer.zero_grad()
        torch.autograd.backward(total_of(model(batch, ALPHA)))
        optimizer.step()

    return run


def total_of(losses: dict[str, Tensor]) -> Tensor:
    """The sum of all losses."""
    return torch.stack(list(losses.values())).sum()


def compare_losses(family: Vicha, straight: StraightVicha, batch: PairBatch) -> dict[str, float]:
    """Let both take the losses of the same batch from the same state, and say how far each differs, relatively.

    Both twins and queues move on by this one step, alike.
    """
    given = with_given_negatives(batch)
    with torch.no_grad():
        ours: Losses = family.train()(given, Progress(step=HORIZON.steps, steps_per_epoch=HORIZON.steps_per_epoch))
        theirs = straight(as_published(family, given), ALPHA)
    terms = dict(ours.terms)
    pairs = {
        "contrast": (terms["contrast"] + terms.get("hierarchy", 0.0), theirs["itc"]),
        "match": (terms["match"], theirs["itm"]),
        "masked_text": (terms["masked_text"], theirs["mlm"]),
        "masked_image": (terms["masked_image"], theirs["mim"]),
        "total": (ours.total, total_of(theirs)),
    }
    return {name: float((mine / other - 1).abs()) for name, (mine, other) in pairs.items()}
