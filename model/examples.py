"""The waist: tasks know data and metrics, families know tensors, and they meet at these five kinds of example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor
from torch.utils.data import default_collate


class UnfitError(ValueError):
    """Examples that cannot be learned from or asked about as the family is configured; the message is for whoever chose them."""


UnitBox = tuple[float, float, float, float]  # x0, y0, x1, y1 as fractions of the picture, in [0, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a family wants to see: the sizes that tasks resize to, and how pixels are normalised on the device."""

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    frames: int = 0
    sample_rate: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What every example carries. `key` addresses its random choices; `weight` scales its loss."""

    key: str
    images: tuple[Tensor, ...] = ()  # each (3, H, W) uint8, already cropped and resized to the view
    video: Tensor | None = None  # (F, 3, H, W) uint8
    audio: Tensor | None = None  # (S,) float32
    regions: Mapping[str, Tensor] = field(default_factory=dict)
    concepts: tuple[str, ...] = ()  # best first
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired(Example):
    """A picture and a text that belongs to it: contrast, match, mask."""

    text: str
    identity: int = -1  # the same number for all texts of one picture; -1 where every pair is its own
    wrong_text: str = (
        ""  # a text that is known not to belong to the picture: a negative for matching; empty where none is
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Generate(Example):
    """A prompt and the texts to generate: captions, answers, boxes as tokens, image codes, infilling."""

    prompt: str
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Classify(Example):
    """A text and its label among fixed classes: entailment, fixed answer lists."""

    text: str
    label: int | None
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Locate(Example):
    """A text and the box it refers to."""

    text: str
    box: UnitBox | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare(Example):
    """A sentence about two pictures, true or false. `concepts` are the first picture's."""

    text: str
    label: bool | None
    second_concepts: tuple[str, ...] = ()  # the second picture's, best first


def stack_images(examples: list[Example] | tuple[Example, ...], position: int = 0) -> Tensor:
    """Stack one picture of each example: (B, 3, H, W) uint8; in a loader worker straight into memory that its parent sees."""
    stacked: Tensor = default_collate([example.images[position] for example in examples])
    return stacked
