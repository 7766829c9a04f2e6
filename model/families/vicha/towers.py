"""All encoders of one side, student or momentum twin: what a picture, its concepts and a text become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from model.examples import UnfitError
from model.families.vicha.config import Config
from model.towers.image import ImageStates, ImageTower
from model.towers.text import FusionTower, TextConfig, TextStates, TextTower, WordHead

FusionT = TypeVar("FusionT", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class ConceptStates:
    """Concept tokens: `hidden` (B, K, Dt) as read, `tokens` (B, K, Dv) as shown to the picture tower."""

    hidden: Tensor
    tokens: Tensor


class ConceptTower(nn.Module):
    """A small text tower with word embeddings of its own, and a projection to the picture's width."""

    def __init__(self, text: TextConfig, *, layers: int, picture_width: int) -> None:
        super().__init__()
        self.text = TextTower(text, layers=layers)
        self.project = nn.Linear(text.width, picture_width)

    def forward(self, ids: Tensor, mask: Tensor) -> ConceptStates:
        """(B, K) ids and mask to concept tokens."""
        hidden = self.text(ids, mask).top
        return ConceptStates(hidden=hidden, tokens=self.project(hidden))


class Reader(nn.Module, Generic[FusionT]):
    """Picture, concept, text and fusion towers: what every model of the line reads with."""

    def __init__(self, config: Config, fusion: Callable[[Config], FusionT]) -> None:
        super().__init__()
        self.image = ImageTower(config.vision, image_size=config.image_size, patch_size=config.patch_size)
        self.text = TextTower(config.text, layers=config.text.fusion_layer)
        self.fusion = fusion(config)
        self.concepts: ConceptTower | None = None
        if config.concepts is not None:
            self.concepts = ConceptTower(config.text, layers=config.concepts.layers, picture_width=config.vision.width)

    def note(self, ids: Tensor | None, mask: Tensor | None) -> ConceptStates | None:
        """Read (B, K) concept ids; `None` where the family sees no concepts.

        Raises:
            UnfitError: the family sees concepts and none are given.
        """
        if self.concepts is None:
            return None
        if ids is None or mask is None:
            raise UnfitError("this batch holds no concepts, which the family is configured to see")
        return self.concepts(ids, mask)  # type: ignore[no-any-return]

    def see(self, patches: Tensor, concepts: ConceptStates | None) -> ImageStates:
        """Encode (B, P, Dv) embedded patches together with the concept tokens."""
        if concepts is None:
            return self.image(patches)  # type: ignore[no-any-return]
        return self.image(patches, concepts.tokens)  # type: ignore[no-any-return]


def one_picture_fusion(config: Config) -> FusionTower:
    """The fusion tower of models that read one picture at a time."""
    return FusionTower(config.text, picture_width=config.vision.width)


class Towers(Reader[FusionTower]):
    """A reader with the projections into the common space and the head that predicts words."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, one_picture_fusion)
        self.image_projection = nn.Linear(config.vision.width, config.projection)
        self.text_projection = nn.Linear(config.text.width, config.projection)
        self.words: WordHead | None = WordHead(config.text) if config.masked_text is not None else None

    def image_features(self, states: Tensor) -> Tensor:
        """(B, S, Dv) picture states to (B, D) unit features of the class token."""
        return normalize(self.image_projection(states[:, 0]), dim=1)

    def text_features(self, states: Tensor) -> Tensor:
        """(B, T, Dt) text states to (B, D) unit features of the class token."""
        return normalize(self.text_projection(states[:, 0]), dim=1)

    def read_twice(self, ids: Tensor, other_ids: Tensor | None, mask: Tensor) -> tuple[TextStates, TextStates | None]:
        """Read the texts and, in the same pass, other versions of them with the same padding (the masked ones)."""
        if other_ids is None:
            return self.text(ids, mask), None
        both = self.text(torch.cat([ids, other_ids]), torch.cat([mask, mask]))
        first, second = zip(*(layer.chunk(2) for layer in both.layers), strict=True)
        return (
            TextStates(top=first[-1], layers=first, mask=mask),
            TextStates(top=second[-1], layers=second, mask=mask),
        )

    def word_logits(self, states: Tensor, positions: Tensor) -> Tensor:
        """Predict words at flat positions (M,) of fused (B, T, Dt) states: (M, V)."""
        assert self.words is not None
        return self.words(states.flatten(0, 1)[positions], self.text.embedding.words.weight)  # type: ignore[no-any-return]
