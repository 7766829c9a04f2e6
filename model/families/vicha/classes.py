"""ViCHA fine-tuned to give a text about a picture one of a few classes (visual entailment on SNLI-VE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softmax

from model.examples import Classify, Example, UnfitError
from model.families.vicha.batch import ClassesBatch
from model.families.vicha.config import Config
from model.families.vicha.finetuned import ClassHead, Finetuned
from model.families.vicha.heads import ClassesHead
from model.families.vicha.towers import Reader, one_picture_fusion
from model.family import Losses, Rank, Ranking
from model.objectives.classification import softened_cross_entropy
from model.towers.text import FusionTower


class Classifier(Reader[FusionTower]):
    """A reader with a head on the fused class token."""

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__(config, one_picture_fusion)
        self.head = ClassHead(config.text.width, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassesStep:
    """The loss of one step and what it was made of."""

    losses: Losses
    logits: Tensor  # (B, C)
    twin_logits: Tensor | None  # (B, C); `None` where no share of it was asked for


class VichaClasses(Finetuned[Classifier]):
    """Text and picture through all layers; two layers on the class token."""

    serves: ClassVar[frozenset[type[Example]]] = frozenset({Classify})

    def __init__(self, config: Config) -> None:
        assert isinstance(config.head, ClassesHead)
        super().__init__(config, Classifier(config, len(config.head.classes)), config.head.distil)
        self.head_config = config.head

    def losses(self, batch: ClassesBatch, *, soften: float) -> Losses:
        return self.step(batch, soften=soften).losses

    def step(self, batch: ClassesBatch, *, soften: float) -> ClassesStep:
        """Compute one step with everything it is made of; its loss is named `classes`.

        Raises:
            UnfitError: the batch has no labels.
        """
        if batch.labels is None:
            raise UnfitError("this batch holds texts without a class; train on a split whose labels are published")
        self.move_twin()
        logits, twin_logits = self.logits(self.student, batch), None
        if self.twin is not None and soften > 0:
            with torch.no_grad():
                twin_logits = self.logits(self.twin, batch)
        rows = softened_cross_entropy(logits, batch.labels, twin_logits, soften=soften)
        return ClassesStep(
            losses=Losses({"classes": weighted_mean(rows, batch.weights)}), logits=logits, twin_logits=twin_logits
        )

    def logits(self, towers: Classifier, batch: ClassesBatch) -> Tensor:
        """(B, C) logits of one side."""
        seen, _ = self.look(towers, batch.pictures)
        read = towers.text(batch.text_ids, batch.text_mask)
        fused = towers.fusion(read.top, read.mask, seen.top)
        return towers.head(fused[:, 0])  # type: ignore[no-any-return]

    def rank(self, batch: ClassesBatch, request: Rank) -> Ranking:
        """Rank the classes; the request names them in the head's order."""
        return rank_classes(self.logits(self.student, batch), request, self.head_config.classes)


def weighted_mean(rows: Tensor, weights: Tensor | None) -> Tensor:
    """Average (B,) losses, each scaled by its example's weight."""
    return (rows if weights is None else rows * weights).mean()


def rank_classes(logits: Tensor, request: Rank, classes: tuple[str, ...]) -> Ranking:
    """Rank (B, C) class logits.

    Raises:
        ValueError: the request names other classes than the head has.
    """
    if request.candidates != classes:
        raise ValueError(f"classes {request.candidates} asked for, and this model tells apart {classes}")
    best = softmax(logits.float(), dim=1).topk(min(request.keep, len(classes)), dim=1)
    return Ranking(places=best.indices, scores=best.values)
