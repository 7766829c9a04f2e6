"""How a task sees a picture: a random crop for training, the whole picture for evaluation, both resized to the family's size."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from shards.config import Config
from shards.errors import DamagedRecordError
from shards.records import Media, Record
from trainers.arrival import Deferred
from trainers.decode import Decoded, DecodeError, decode_rows
from trainers.rand_augment import Operation, RandAugmentConfig, augment, draw_operations
from trainers.stopwatch import Stopwatch

Interpolation = Literal["bicubic", "bilinear"]
Share = Annotated[float, Field(gt=0, le=1)]

_SHRINKS = (1, 2, 4, 8)  # at which libjpeg-turbo computes pictures quickly
_ATTEMPTS = 10  # draws of a crop that does not fit before the largest allowed centre crop is taken


class AugmentConfig(Config):
    """Random crop and flip, as ViCHA pretrains (Shukor et al., 2022); fine-tuning there keeps at least half of the area."""

    scale: tuple[Share, Share] = (0.2, 1.0)
    """least and largest share of the picture's area that a crop keeps"""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """least and largest width/height of a crop, drawn evenly in its logarithm"""
    flip: float = Field(default=0.5, ge=0, le=1)
    """chance of mirroring; set 0 where captions say left and right"""
    interpolation: Interpolation = "bicubic"
    """how a crop is resized, always antialiased"""
    dct_scaling: bool = False
    """decode JPEGs at 1/2, 1/4 or 1/8 of their size where the crop still has at least the model's. Crops of 640x480 photos for
    112 pixels come 1.2 to 1.3 times as quickly and differ by 3 to 4 levels of 255 in the mean, 35 in a pixel of a hundred"""
    randaugment: RandAugmentConfig | None = None
    """operations after crop and flip; published ViCHA draws 2 at level 7"""
    augment_on: Literal["worker", "device"] = "worker"
    """where these operations are done: by the loader, picture by picture, or batched on the training device; drawn alike"""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.scale[0] > self.scale[1] or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError("scale and ratio are (least, largest) pairs of positive numbers")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """A rectangle of a picture, in pixels as displayed."""

    top: int
    left: int
    height: int
    width: int

    def within(self, picture: Decoded) -> Crop:
        """The crop in a picture that was decoded at a fraction of its size: the nearest whole pixels, no fewer than fit in."""
        factor = picture.shrink
        if factor == 1:
            return self
        height, width = round(self.height / factor), round(self.width / factor)
        rows, columns = picture.pixels.shape[1:]
        top, left = min(round(self.top / factor), rows - height), min(round(self.left / factor), columns - width)
        return Crop(top=top, left=left, height=height, width=width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Everything that is drawn about how one picture is shown in training."""

    crop: Crop
    flipped: bool
    operations: tuple[Operation, ...] = ()  # of RandAugment, after crop and flip


class TrainView:
    """A random crop, resized to the family's size, mirrored by chance, then RandAugment where asked for.

    Every draw comes from the example's generator.
    """

    def __init__(self, size: int, config: AugmentConfig) -> None:
        self.size, self.config = size, config
        self.stopwatch = Stopwatch()
        self._deferred: list[tuple[Operation, ...]] = []

    def __call__(self, record: Record, rng: np.random.Generator, *, position: int = 0) -> Tensor:
        """Show picture number `position`: (3, R, R) uint8.

        Raises:
            DamagedRecordError: the picture cannot be decoded, or is not as large as its record says.
        """
        media = picture_of(record, position)
        # The size stands in the header where we wrote the shard: the crop is known before a pixel is decoded.
        look = None if media.width is None or media.height is None else self.draw(media.height, media.width, rng)
        began = self.stopwatch.now()
        if look is None:
            picture = decoded(record, media)
            look = self.draw(picture.height, picture.width, rng)
        else:
            shrink = shrink_of(look.crop, self.size) if self.config.dct_scaling else 1
            picture = decoded(record, media, until=look.crop.top + look.crop.height, shrink=shrink)
            look = replace(look, crop=look.crop.within(picture))
        began = self.stopwatch.add("decode", began)
        if self.config.augment_on == "device":
            self._deferred.append(look.operations)
            look = replace(look, operations=())
        shown = self.show(picture.pixels, look)
        self.stopwatch.add("augment", began)
        return shown

    def take_deferred(self) -> Deferred:
        """Give what is still to be done to the pictures shown since the last call, and forget it."""
        operations, self._deferred = tuple(self._deferred), []
        settings = self.config.randaugment
        return Deferred(operations=operations, faithful=settings is not None and settings.faithful)

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Look:
        """Draw how a picture of this size is shown; nothing else is drawn for it."""
        config = self.config
        return Look(
            crop=draw_crop(height, width, rng, scale=config.scale, ratio=config.ratio),
            flipped=bool(rng.random() < config.flip),
            operations=() if config.randaugment is None else draw_operations(config.randaugment, rng),
        )

    def show(self, picture: Tensor, look: Look) -> Tensor:
        """Show a decoded picture, (3, H, W) uint8, as drawn: (3, R, R) uint8."""
        crop = look.crop
        cut = picture[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        shown = resize(cut, self.size, self.config.interpolation)
        shown = shown.flip(2) if look.flipped else shown
        if not look.operations or self.config.randaugment is None:
            return shown
        return augment(shown[None], [look.operations], faithful=self.config.randaugment.faithful)[0]


class EvalView:
    """The whole picture, resized to the family's square without keeping its aspect, as in the published evaluations."""

    def __init__(self, size: int, interpolation: Interpolation = "bicubic") -> None:
        self.size, self.interpolation = size, interpolation
        self.stopwatch = Stopwatch()

    def take_deferred(self) -> Deferred:
        """Nothing is left to do."""
        return Deferred()

    def __call__(self, record: Record, rng: np.random.Generator, *, position: int = 0) -> Tensor:
        """Show picture number `position`: (3, R, R) uint8. Nothing is drawn from `rng`."""
        began = self.stopwatch.now()
        picture = decoded(record, picture_of(record, position))
        began = self.stopwatch.add("decode", began)
        shown = resize(picture.pixels, self.size, self.interpolation)
        self.stopwatch.add("augment", began)
        return shown


def draw_crop(
    height: int, width: int, rng: np.random.Generator, *, scale: tuple[float, float], ratio: tuple[float, float]
) -> Crop:
    """Draw a crop by area and aspect; where none fits, take the largest centre crop whose aspect is allowed.

    Source: the random sized crop of Szegedy et al., "Going deeper with convolutions" (2015), section 6.
    """
    for _ in range(_ATTEMPTS):
        area = rng.uniform(*scale) * height * width
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            return Crop(
                top=int(rng.integers(height - crop_height + 1)),
                left=int(rng.integers(width - crop_width + 1)),
                height=crop_height,
                width=crop_width,
            )
    aspect = min(max(width / height, ratio[0]), ratio[1])
    crop_width = min(width, max(1, round(height * aspect)))
    crop_height = min(height, max(1, round(width / aspect)))
    return Crop(top=(height - crop_height) // 2, left=(width - crop_width) // 2, height=crop_height, width=crop_width)


def shrink_of(crop: Crop, size: int) -> int:
    """By how much, of 1, 2, 4 and 8, a picture may shrink so that its crop keeps at least `size` pixels on each side."""
    return max(factor for factor in _SHRINKS if factor == 1 or min(crop.height, crop.width) // factor >= size)


def resize(picture: Tensor, size: int, interpolation: Interpolation) -> Tensor:
    """Resize (3, H, W) uint8 to (3, size, size) uint8, antialiased; uint8 throughout is several times quicker than float.

    Every value is within 1 (bilinear) or 2 (bicubic) of Pillow's.
    """
    height, width = picture.shape[1:]
    if (height, width) == (size, size):
        return picture.contiguous()
    # Bicubic passes overshoot and are clipped between the two, so their order shows; this is Pillow's (13) rule. Torch always
    # goes across first.
    if interpolation == "bicubic" and height > size and height - size > 2 * (width - size) and width != size:
        picture = _scaled(picture, (size, width), interpolation)
    return _scaled(picture, (size, size), interpolation).contiguous()


def _scaled(picture: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    # A crop's rows do not follow one another in memory; packing them first lets torch take its quick way, a third of the time.
    packed = picture[None].contiguous(memory_format=torch.channels_last)
    scaled = torch.nn.functional.interpolate(packed, size=size, mode=interpolation, antialias=True, align_corners=False)
    return scaled[0]


def picture_of(record: Record, position: int) -> Media:
    """Find picture number `position` among a record's media.

    Raises:
        DamagedRecordError: the record has no such picture.
    """
    pictures = [media for media in record.media if media.kind == "image"]
    if position >= len(pictures):
        raise DamagedRecordError(
            f"record {record.key!r} has {len(pictures)} pictures and picture {position} is asked for"
        )
    return pictures[position]


def decoded(record: Record, media: Media, *, until: int | None = None, shrink: int = 1) -> Decoded:
    """Decode one of a record's pictures.

    Args:
        record: with its media bytes.
        media: which of its pictures.
        until: rows from this one on are not asked for, and may be missing.
        shrink: by how much it may shrink.

    Raises:
        DamagedRecordError: the picture cannot be decoded, or is not as large as its record says.
    """
    try:
        picture = decode_rows(record.payload[media.member], until, shrink=shrink)
    except DecodeError as problem:
        raise DamagedRecordError(f"record {record.key!r}: its {media.member!r} member is {problem}") from problem
    if media.width not in (None, picture.width) or media.height not in (None, picture.height):
        raise DamagedRecordError(
            f"record {record.key!r}: its {media.member!r} member shows {picture.width} x {picture.height} pixels, "
            f"its header says {media.width} x {media.height}"
        )
    return picture
