"""What the fine-tuned models of the line share: a student, its momentum twin, and how their weights come from pretraining."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from model.families.vicha.batch import Pictures
from model.families.vicha.config import Config
from model.families.vicha.heads import DistilConfig
from model.families.vicha.towers import ConceptStates, Reader
from model.family import Decode, Embed, Family, Losses, Match, Progress, Rank, Ranking
from model.initialisation import xavier_matrices
from model.momentum import follow, frozen_twin
from model.towers.image import ImageStates, PixelNorm

StudentT = TypeVar("StudentT", bound=Reader[Any])
SIDES = ("student", "twin")


class ClassHead(nn.Module):
    """Two layers with a ReLU between, on the class token."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, classes)

    def forward(self, states: Tensor) -> Tensor:
        """(B, D) to (B, C) logits."""
        return self.out(self.hidden(states).relu())  # type: ignore[no-any-return]


class Finetuned(Family, Generic[StudentT]):
    """One student and, where soft targets are wanted, the momentum twin that gives them."""

    def __init__(self, config: Config, student: StudentT, distil: DistilConfig | None) -> None:
        super().__init__()
        self.config = config
        self.distil = distil
        self.normalise = PixelNorm(config.pixel_mean, config.pixel_std)
        self.student = student
        if config.initialisation == "xavier":
            xavier_matrices(student)
        self.twin: StudentT | None = frozen_twin(student) if distil is not None else None

    def forward(self, batch: Any, progress: Progress) -> Losses:
        """Compute the losses of one micro-batch; in training also move the twin."""
        soften = 0.0
        if self.distil is not None:
            soften = progress.ramp(self.distil.alpha) if self.distil.ramp == "first_epoch" else self.distil.alpha
        return self.losses(batch, soften=soften)

    @abstractmethod
    def losses(self, batch: Any, *, soften: float) -> Losses:
        """Compute the losses with this share of the twin's soft targets, 0 to 1."""

    @torch.no_grad()
    def predict(self, batch: Any, request: Embed | Match | Rank | Decode) -> Ranking:
        """Answer `Rank`.

        Raises:
            NotImplementedError: any other request.
        """
        if not isinstance(request, Rank):
            raise NotImplementedError(f"a fine-tuned vicha answers Rank, not {type(request).__name__}")
        return self.rank(batch, request)

    @abstractmethod
    def rank(self, batch: Any, request: Rank) -> Ranking:
        """Rank the candidates of a request for each example."""

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Published rule: all but vectors and biases decay; so do the learned single tokens."""
        return parameter.ndim != 1 and not name.endswith(".bias")

    def position_grids(self) -> dict[str, int]:
        """Say which tensors are learned position tables, and patches per side of their grids."""
        sides = SIDES if self.twin is not None else SIDES[:1]
        return {f"{side}.image.positions": self.student.image.grid for side in sides}

    def adopt(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give weights of an earlier stage, under our names, the names they have here; own weights stay as they are.

        Where the earlier stage had no twin, the student's weights start it: the released code leaves it as it was before
        the weights were read, so that for thousands of steps the teacher knows less than the student.
        """
        found = self.adopt_student(dict(tensors))
        own = {name for name in self.state_dict() if name.startswith("twin.")}
        if not any(name in found for name in own):
            found |= {name: found[source] for name in own if (source := name.replace("twin.", "student.", 1)) in found}
        return found

    def adopt_student(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename what this task has under other names than pretraining; by default nothing."""
        return tensors

    def move_twin(self) -> None:
        """Let the twin follow the student; only in training."""
        if self.training and self.twin is not None and self.distil is not None:
            follow(self.twin, self.student, momentum=self.distil.momentum)

    def look(
        self, towers: Reader[Any], pictures: Pictures, *, eyes: Reader[Any] | None = None
    ) -> tuple[ImageStates, ConceptStates | None]:
        """Encode pictures with their concepts.

        Args:
            towers: which side reads the concepts.
            pictures: B pictures.
            eyes: whose picture tower looks, where it is not that side's.
        """
        eyes = eyes or towers
        concepts = towers.note(pictures.concept_ids, pictures.concept_mask)
        return eyes.see(eyes.image.embed(self.normalise(pictures.pixels)), concepts), concepts
