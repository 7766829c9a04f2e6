"""Make large pictures smaller once, when they are stored, rather than at every reading; boxes shrink with their picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, cast

from pydantic import Field, PositiveInt, model_validator

from pipelines.pictures import PictureFormat, draw, encode_picture
from shards.config import Config as BaseConfig
from shards.media import MediaProblem
from shards.records import Annotation, Detection, Grounding, Media, Record, Reject

_WRITABLE = frozenset({"jpg", "png", "webp"})


class Config(BaseConfig):
    """One of the two sizes is given. Pictures are never enlarged, and a picture that needs no change keeps its bytes."""

    shorter_side: PositiveInt | None = None
    """Pixels of the shorter side; the longer one keeps the picture's shape."""
    bound: PositiveInt | None = None
    """Pixels that neither side exceeds."""
    format: Literal["keep", "jpg", "png", "webp"] = "keep"
    """How pictures are written. `keep`: as they were, and those of rarer formats as PNG; any other also rewrites pictures that
    are of another format."""
    quality: int = Field(default=90, ge=1, le=100)
    """Of JPEG and WebP."""

    @model_validator(mode="after")
    def _one_size(self) -> Config:
        if (self.shorter_side is None) == (self.bound is None):
            raise ValueError("resize_image needs one of shorter_side and bound")
        return self


class ResizeImage:
    """What cannot be drawn is a reject with the reason that the decoder gives."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, record: Record) -> Record | Reject:
        payload = dict(record.payload)
        try:
            media = tuple(self._resized(item, payload) for item in record.media)
        except MediaProblem as problem:
            return Reject(id=record.origin.id, reason=problem.reason, detail=problem.detail)
        if media == record.media and all(payload[item.member] is record.payload[item.member] for item in media):
            return record
        # Boxes are those of the first picture, as everywhere.
        annotations = tuple(_scaled(annotation, record.media[0], media[0]) for annotation in record.annotations)
        return replace(record, media=media, annotations=annotations, payload=payload)

    def _resized(self, item: Media, payload: dict[str, bytes]) -> Media:
        """Draw one picture anew where that is needed; its bytes in `payload` are exchanged."""
        if item.kind != "image" or not item.width or not item.height:
            return item
        stem, _, extension = item.member.rpartition(".")
        width, height = self._size(item.width, item.height)
        format = self._format(extension)
        is_wanted = self._config.format in ("keep", extension)
        if (width, height) == (item.width, item.height) and is_wanted:
            return item
        pixels = draw(payload.pop(item.member), width=width, height=height)
        member = f"{stem}.{format}" if stem else format
        payload[member] = encode_picture(pixels, format=format, quality=self._config.quality)
        return replace(item, member=member, width=width, height=height)

    def _size(self, width: int, height: int) -> tuple[int, int]:
        """The new sides, each rounded to the nearest pixel; the old ones where they are small enough."""
        if self._config.shorter_side is not None:
            wanted, given = self._config.shorter_side, min(width, height)
        else:
            wanted, given = cast(int, self._config.bound), max(width, height)
        if wanted >= given:
            return width, height
        return max(1, (2 * width * wanted + given) // (2 * given)), max(1, (2 * height * wanted + given) // (2 * given))

    def _format(self, extension: str) -> PictureFormat:
        if self._config.format != "keep":
            return self._config.format
        return cast(PictureFormat, extension) if extension in _WRITABLE else "png"


def _scaled(annotation: Annotation, old: Media, new: Media) -> Annotation:
    """The annotation on the resized picture."""
    if not isinstance(annotation, (Grounding, Detection)) or (old.width, old.height) == (new.width, new.height):
        return annotation
    if not (old.width and old.height and new.width and new.height):
        return annotation
    across, down = new.width / old.width, new.height / old.height
    x0, y0, x1, y1 = annotation.box
    # Rounding of the products must not push a box over the border that it touches.
    box = (x0 * across, y0 * down, min(x1 * across, float(new.width)), min(y1 * down, float(new.height)))
    return replace(annotation, box=box)


def build(config: Config) -> ResizeImage:
    return ResizeImage(config)
