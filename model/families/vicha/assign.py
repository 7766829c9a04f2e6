"""ViCHA's pretraining for two pictures: which of two does a caption describe, if any (text assignment, before NLVR2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, softmax

from model.examples import Example, Paired, UnfitError
from model.families.vicha.batch import PairBatch, Pictures
from model.families.vicha.compare import PairReader, double_fusion_layers
from model.families.vicha.config import Config
from model.families.vicha.finetuned import Finetuned
from model.families.vicha.heads import AssignHead
from model.family import Losses, Rank, Ranking
from model.objectives.assignment import Assignment, draw_assignment
from model.objectives.contrast import same_picture

CLASSES = ("first", "second", "neither")


class Assigner(PairReader):
    """A pair reader with a single layer on the fused class token.

    The projections and the temperature come from pretraining and never learn here: pictures are only compared to draw
    others. The text's projection and the temperature are not used at all and travel on, as in released files.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.head = nn.Linear(config.text.width, len(CLASSES))
        self.image_projection = nn.Linear(config.vision.width, config.projection).requires_grad_(False)
        self.text_projection = nn.Linear(config.text.width, config.projection).requires_grad_(False)
        self.temperature = nn.Parameter(torch.tensor(config.contrast.temperature), requires_grad=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignStep:
    """The loss of one step and what it was made of."""

    losses: Losses
    seen: Tensor  # (B, 1 + P + K, Dv)
    assignment: Assignment
    logits: Tensor  # (B, 3)


class VichaAssign(Finetuned[Assigner]):
    """Each caption is shown two pictures of the batch: its own and another one, or two others."""

    serves: ClassVar[frozenset[type[Example]]] = frozenset({Paired})
    least_batch: ClassVar[int] = 3

    def __init__(self, config: Config) -> None:
        assert isinstance(config.head, AssignHead)
        super().__init__(config, Assigner(config), None)
        self.head_config = config.head

    def losses(self, batch: PairBatch, *, soften: float) -> Losses:
        return self.step(batch).losses

    def step(self, batch: PairBatch) -> AssignStep:
        """Compute one step with everything it is made of; its loss is named `assign`.

        Raises:
            UnfitError: the batch holds no pictures, or fewer than the three that an assignment needs.
        """
        if batch.pixels is None:
            raise UnfitError("this batch holds no pictures; give every example one picture")
        pictures = Pictures(pixels=batch.pixels, concept_ids=batch.concept_ids, concept_mask=batch.concept_mask)
        seen, _ = self.look(self.student, pictures)
        read = self.student.text(batch.text_ids, batch.text_mask)
        assignment = self._assign(batch, seen.top)
        fused = self.student.fusion(read.top, read.mask, seen.top, seen.top, assigned=assignment.pictures)
        logits = self.student.head(fused[:, 0])
        return AssignStep(
            losses=Losses({"assign": cross_entropy(logits.float(), assignment.labels)}),
            seen=seen.top,
            assignment=assignment,
            logits=logits,
        )

    def rank(self, batch: PairBatch, request: Rank) -> Ranking:
        """Rank first, second and neither for the pictures that the batch assigns."""
        logits = self.step(batch).logits
        best = softmax(logits.float(), dim=1).topk(min(request.keep, len(CLASSES)), dim=1)
        return Ranking(places=best.indices, scores=best.values)

    def adopt_student(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        found = double_fusion_layers(tensors, layers=self.config.text.layers - self.config.text.fusion_layer)
        if "temperature" in found:
            found["student.temperature"] = found.pop("temperature")
        return found

    @torch.no_grad()
    def _assign(self, batch: PairBatch, seen: Tensor) -> Assignment:
        features = normalize(self.student.image_projection(seen[:, 0]), dim=1)
        noise = batch.assign_noise
        if noise is None:
            noise = torch.rand(len(batch), 3, device=seen.device)
        drawn = draw_assignment(
            (features @ features.t()).float() / self.head_config.temperature,
            same=same_picture(batch.identity),
            noise=noise,
            neither=self.head_config.neither,
        )
        if batch.assigned is None or batch.assigned_labels is None:
            return drawn
        return Assignment(pictures=batch.assigned, labels=batch.assigned_labels, weights=drawn.weights)
