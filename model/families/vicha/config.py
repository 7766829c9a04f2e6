"""The configuration of the ViCHA family: sizes, parts and the choices named in the package's table."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import PositiveInt, model_validator

from model.config import Config as BaseConfig
from model.families.vicha.heads import Head
from model.objectives.contrast import ContrastConfig
from model.objectives.hierarchy import HierarchyConfig
from model.objectives.masked_image import MaskedImageConfig
from model.objectives.masked_text import MaskedTextConfig
from model.objectives.match import MatchConfig
from model.towers.image import VisionConfig
from model.towers.text import TextConfig

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

Padding = Literal["longest", "fixed"]
Border = Literal["refuse", "ignore"]

OPTIONAL_OBJECTIVES = ("hierarchy", "masked_text", "masked_image")


class ConceptsConfig(BaseConfig):
    """Visual concepts: nouns chosen by CLIP, read by a small text tower, appended to the picture's patches."""

    layers: PositiveInt = 2
    max_tokens: PositiveInt = 55  # class token included
    draw: PositiveInt | None = 4  # how many are drawn, with replacement, in training; `None` takes all in their order
    separator: Literal["space", "sep"] = "space"  # between concepts: a space, or a literal [SEP]
    train_padding: Padding = "longest"  # of the batch; "fixed" pads to max_tokens
    eval_padding: Padding = "fixed"


class CleaningConfig(BaseConfig):
    """Cleaning of captions before they are cut into word pieces."""

    max_words: PositiveInt = 30
    max_tokens: PositiveInt = 25  # class token included


class Config(BaseConfig):
    """The whole family; a part that is `None` does not exist."""

    kind: Literal["vicha"] = "vicha"
    image_size: PositiveInt = 256
    patch_size: PositiveInt = 16
    # What becomes of pixels beyond the last whole patch. Published fine-tuning, at 380 pixels, ignores a strip of 12.
    border: Border = "refuse"
    pixel_mean: tuple[float, float, float] = CLIP_MEAN
    pixel_std: tuple[float, float, float] = CLIP_STD
    vision: VisionConfig = VisionConfig()
    text: TextConfig = TextConfig()
    cleaning: CleaningConfig = CleaningConfig()
    # How fresh weights are drawn: with the published deviation of 0.02, or by each matrix's own size, for small widths.
    initialisation: Literal["published", "xavier"] = "published"
    projection: PositiveInt = 256  # width of the space in which pictures and texts are compared
    contrast: ContrastConfig = ContrastConfig()
    match: MatchConfig = MatchConfig()
    hierarchy: HierarchyConfig | None = HierarchyConfig()
    masked_text: MaskedTextConfig | None = MaskedTextConfig()
    masked_image: MaskedImageConfig | None = MaskedImageConfig()
    concepts: ConceptsConfig | None = ConceptsConfig()
    # A task's own head takes the place of all objectives on pairs; then these three are off by default.
    head: Head | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_head_turns_objectives_off(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("head") is not None:
            return dict.fromkeys(OPTIONAL_OBJECTIVES) | data
        return data

    @model_validator(mode="after")
    def _a_head_stands_alone(self) -> Self:
        if self.head is not None:
            default = {"contrast": ContrastConfig(), "match": MatchConfig()}
            named = [name for name in OPTIONAL_OBJECTIVES if getattr(self, name) is not None]
            named += [name for name, settings in default.items() if getattr(self, name) != settings]
            if named:
                raise ValueError(
                    f"head.kind {self.head.kind!r} trains on its own task alone, so {' and '.join(named)} would have no "
                    "effect; leave them out"
                )
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.image_size < self.patch_size:
            raise ValueError(f"image_size {self.image_size} is smaller than one patch of {self.patch_size} pixels")
        if (beyond := self.image_size % self.patch_size) and self.border == "refuse":
            raise ValueError(
                f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}, so the model would not see the "
                f"last {beyond} rows and columns of any picture; choose image_size {self.image_size - beyond} or "
                f"{self.image_size - beyond + self.patch_size}, or say border=ignore, as the published fine-tuning does"
            )
        if self.vision.width % self.vision.heads or self.text.width % self.text.heads:
            raise ValueError("vision.width and text.width must each be divisible by their number of heads")
        if self.hierarchy is not None:
            deepest = min(self.vision.depth - 1, self.text.fusion_layer)
            if self.hierarchy.layers > deepest:
                raise ValueError(
                    f"hierarchy.layers {self.hierarchy.layers} is too many: {self.vision.depth} picture layers and "
                    f"{self.text.fusion_layer} text layers can be aligned at {deepest} depths, the last one left out"
                )
        if self.masked_image is not None:
            if self.masked_image.decodes and (
                self.masked_image.decoder_width % 4 or self.masked_image.decoder_width % self.masked_image.decoder_heads
            ):
                raise ValueError("masked_image.decoder_width must be divisible by 4 and by masked_image.decoder_heads")
            if self.masked_image.fuses and self.vision.width != self.text.width:
                raise ValueError(
                    f"masked_image.mode {self.masked_image.mode!r} sends picture tokens through the text layers, so "
                    f"vision.width {self.vision.width} must equal text.width {self.text.width}"
                )
            shares = self.masked_image.fuses and self.masked_image.decodes
            if shares and self.masked_image.decoder_width != self.vision.width:
                raise ValueError(
                    f"masked_image.mode {self.masked_image.mode!r} has one mask token for both, so "
                    f"masked_image.decoder_width must equal vision.width {self.vision.width}"
                )
            if int((self.image_size // self.patch_size) ** 2 * (1 - self.masked_image.mask_ratio)) < 1:
                raise ValueError(f"masked_image.mask_ratio {self.masked_image.mask_ratio} leaves no patch visible")
        longest = max(self.cleaning.max_tokens, self.concepts.max_tokens if self.concepts else 0)
        if longest > self.text.max_positions:
            raise ValueError(f"texts of {longest} tokens do not fit text.max_positions {self.text.max_positions}")
        return self

    def with_vocabulary(self, size: int) -> Self:
        """The same family over a vocabulary of another size."""
        return self.model_copy(update={"text": self.text.model_copy(update={"vocab_size": size})})
