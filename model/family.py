"""The contract of a model line: what it serves, how a step's losses come out, and what it can be asked to predict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from model.examples import Example, View


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is: all that a loss may know of the schedule."""

    step: int = 0  # optimiser steps done before this one, over the whole run
    steps_per_epoch: int = 1

    @property
    def epoch(self) -> int:
        return self.step // self.steps_per_epoch

    def ramp(self, value: float) -> float:
        """Rise linearly from 0 to `value` during epoch 0, then stay (ALBEF's soft-target weight)."""
        return value * min(1.0, self.step / self.steps_per_epoch)


@dataclass(frozen=True, slots=True)
class Losses:
    """Named scalar losses, already weighted, and further numbers to log (no gradient needed)."""

    terms: Mapping[str, Tensor]
    logged: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        return torch.stack(list(self.terms.values())).sum()


class Batch(Protocol):
    """Tensors of one micro-batch; a family defines its own frozen dataclass. All move to the device together."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed:
    """Ask for unit-norm embeddings and the states that `Match` needs."""

    images: bool = True
    texts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Ask for the raw match logit of each (picture, text) pair of the batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """Ask for a ranking of given candidate texts; the processor's `request` prepares it."""

    candidates: tuple[str, ...]
    keep: int = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The answer to `Rank`: the best candidates of each example, best first."""

    places: Tensor  # (B, k) numbers of candidates
    scores: Tensor  # (B, k) their probabilities among the candidates that were compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """Ask for generated text."""

    beams: int = 1
    max_tokens: int = 20
    min_tokens: int = 0


class Processor(Protocol):
    """Examples to a batch. Runs in loader workers; holds the tokenizer; an example's random choices come from its seed alone."""

    @property
    def view(self) -> View: ...

    def __call__(self, examples: Sequence[Example], seeds: Sequence[int], *, train: bool = True) -> Batch: ...

    def request(self, request: Rank) -> Rank:
        """Prepare a request for the family, once for all batches: one that reads candidates gets them cut into tokens."""
        ...


class Family(nn.Module, ABC):
    """A model line. `__init__` declares parts; loading and downloading happen elsewhere."""

    serves: ClassVar[frozenset[type[Example]]]
    least_batch: ClassVar[int] = 1  # examples that a training forward pass needs, where its loss relates them

    @abstractmethod
    def forward(self, batch: Any, progress: Progress) -> Losses:
        """Compute the named losses of one micro-batch."""

    @abstractmethod
    def predict(self, batch: Any, request: Embed | Match | Rank | Decode) -> Any:
        """Answer a request without gradients."""

    @abstractmethod
    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay applies to a parameter (by the family's published rule)."""
