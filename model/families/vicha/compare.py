"""ViCHA fine-tuned to say whether a sentence about two pictures is true (NLVR2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from model.examples import Compare, Example, UnfitError
from model.families.vicha.batch import CompareBatch, Pictures
from model.families.vicha.classes import rank_classes, weighted_mean
from model.families.vicha.config import Config
from model.families.vicha.finetuned import SIDES, ClassHead, Finetuned
from model.families.vicha.heads import CompareHead
from model.families.vicha.towers import Reader
from model.family import Losses, Rank, Ranking
from model.objectives.classification import softened_cross_entropy
from model.towers.pairs import PairFusionTower

TRUTH = ("False", "True")  # the dataset's own words, in the order of the labels
FUSION = ".fusion.layers."


class PairReader(Reader[PairFusionTower]):
    """A reader whose fusion layers come in pairs, one layer for each of two pictures."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, lambda config: PairFusionTower(config.text, picture_width=config.vision.width))


class Comparer(PairReader):
    """A pair reader with a head on the fused class token."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.head = ClassHead(config.text.width, len(TRUTH))


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSide:
    """What one side made of a batch."""

    seen: tuple[Tensor, Tensor]  # each (B, 1 + P + K, Dv)
    fused: Tensor  # (B, T, Dt)
    logits: Tensor  # (B, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareStep:
    """The loss of one step and what it was made of."""

    losses: Losses
    student: CompareSide
    twin: CompareSide | None


class VichaCompare(Finetuned[Comparer]):
    """The sentence reads the first and the second picture by turns; two layers on the class token."""

    serves: ClassVar[frozenset[type[Example]]] = frozenset({Compare})

    def __init__(self, config: Config) -> None:
        assert isinstance(config.head, CompareHead)
        super().__init__(config, Comparer(config), config.head.distil)
        self.head_config = config.head

    def losses(self, batch: CompareBatch, *, soften: float) -> Losses:
        return self.step(batch, soften=soften).losses

    def step(self, batch: CompareBatch, *, soften: float) -> CompareStep:
        """Compute one step with everything it is made of; its loss is named `compare`.

        Raises:
            UnfitError: the batch has no labels.
        """
        if batch.labels is None:
            raise UnfitError("this batch holds sentences without a label; train on a split whose labels are published")
        self.move_twin()
        student, twin = self.side(self.student, batch), None
        if self.twin is not None and soften > 0:
            with torch.no_grad():
                eyes = self.student if self.head_config.teacher_pictures == "student" else self.twin
                twin = self.side(self.twin, batch, eyes=eyes)
        rows = softened_cross_entropy(student.logits, batch.labels, twin.logits if twin else None, soften=soften)
        return CompareStep(losses=Losses({"compare": weighted_mean(rows, batch.weights)}), student=student, twin=twin)

    def side(self, towers: Comparer, batch: CompareBatch, *, eyes: Comparer | None = None) -> CompareSide:
        """Read a batch by one side; `eyes` names whose picture tower looks, where it is not that side's."""
        first, second = self._look_at_both(towers, batch.pictures, batch.second_pictures, eyes)
        read = towers.text(batch.text_ids, batch.text_mask)
        fused = towers.fusion(read.top, read.mask, first, second)
        return CompareSide(seen=(first, second), fused=fused, logits=towers.head(fused[:, 0]))

    def rank(self, batch: CompareBatch, request: Rank) -> Ranking:
        """Rank false and true."""
        return rank_classes(self.side(self.student, batch).logits, request, TRUTH)

    def adopt_student(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return double_fusion_layers(tensors, layers=self.config.text.layers - self.config.text.fusion_layer)

    def _look_at_both(
        self, towers: Comparer, first: Pictures, second: Pictures, eyes: Comparer | None
    ) -> tuple[Tensor, Tensor]:
        same = first.concept_ids is None or second.concept_ids is None
        if not same:
            assert first.concept_ids is not None
            assert second.concept_ids is not None
            same = first.concept_ids.shape == second.concept_ids.shape
        if not same:  # padded each to its own length, which a picture tower sees: two passes
            return self.look(towers, first, eyes=eyes)[0].top, self.look(towers, second, eyes=eyes)[0].top
        both, _ = self.look(towers, joined(first, second), eyes=eyes)
        one, other = both.top.chunk(2)
        return one, other


def joined(first: Pictures, second: Pictures) -> Pictures:
    """Stack two batches of pictures whose concepts are equally long."""
    return Pictures(
        pixels=torch.cat([first.pixels, second.pixels]),
        concept_ids=_cat(first.concept_ids, second.concept_ids),
        concept_mask=_cat(first.concept_mask, second.concept_mask),
    )


def _cat(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else torch.cat([first, second])


def double_fusion_layers(tensors: dict[str, Tensor], *, layers: int) -> dict[str, Tensor]:
    """Make of each fusion layer of pretraining both layers of a pair; weights that are in pairs already stay.

    Args:
        tensors: under our names.
        layers: how many fusion layers pretraining had.
    """
    found: dict[str, Tensor] = {}
    for side in SIDES:
        prefix = side + FUSION
        if any(name.startswith(f"{prefix}{layers}.") for name in tensors):
            return tensors
        for name in [name for name in tensors if name.startswith(prefix)]:
            number, _, rest = name.removeprefix(prefix).partition(".")
            for place in (2 * int(number), 2 * int(number) + 1):
                found[f"{prefix}{place}.{rest}"] = tensors[name]
    return {name: value for name, value in tensors.items() if FUSION not in name} | found
