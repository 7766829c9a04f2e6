"""Cut clips to the seconds that their annotations are about, slow them to a frame rate, shrink them; encoded again as H.264.

A clip that is already as it should be keeps its bytes. Equal clips give equal bytes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.clip_cutting import Cut, cut_clip
from shards.config import Config as BaseConfig
from shards.media import MAX_PIXELS, MediaProblem
from shards.records import Media, Record, Reject
from shards.video import probe_video

_SAME_RATE = 1.001  # 29.97 is no reason to encode a clip again for 30


class Config(BaseConfig):
    """Whatever is not set stays as it is."""

    start_s: float | None = Field(None, ge=0)
    """First second to keep; unset: what the dataset says of each clip, else its beginning."""
    end_s: PositiveFloat | None = None
    """Where to stop; unset: what the dataset says of each clip, else its end."""
    fps: PositiveFloat | None = None
    """Largest frame rate."""
    short_side: PositiveInt | None = Field(None, ge=2)
    """Largest length of the shorter side in pixels."""
    sound: Literal["keep", "drop"] = "keep"
    """A sound track that is kept beside new pictures is encoded again as AAC, in mono or stereo."""
    crf: int = Field(23, ge=0, le=51)
    """H.264's constant quality; smaller is better and larger in bytes."""
    preset: Literal["ultrafast", "veryfast", "faster", "fast", "medium", "slow"] = "medium"
    """H.264's trade of time for bytes."""

    @model_validator(mode="after")
    def _ends_behind_its_start(self) -> Config:
        if self.end_s is not None and self.end_s <= (self.start_s or 0):
            raise ValueError(f"end_s is {self.end_s:g} and must be larger than start_s, which is {self.start_s or 0:g}")
        return self


class TrimVideo:
    """Records without clips pass unchanged; a clip that cannot be cut so makes its record a reject."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, record: Record) -> Record | Reject:
        media: list[Media] = []
        payload = dict(record.payload)
        for clip in record.media:
            try:
                cut = self._cut(clip) if clip.kind == "video" else None
                if cut is None:
                    media.append(clip)
                    continue
                data = cut_clip(payload.pop(clip.member), cut)
                found = probe_video(data, max_pixels=MAX_PIXELS)
            except MediaProblem as problem:
                return Reject(id=record.origin.id, reason=problem.reason, detail=problem.detail)
            found = replace(found, member=".".join([*clip.member.split(".")[:-1], found.member]))
            media.append(found)
            payload[found.member] = data
        return replace(record, media=tuple(media), payload=payload)

    def _cut(self, clip: Media) -> Cut | None:
        """What to do with a clip; None where nothing would change."""
        config = self._config
        assert clip.duration_s is not None
        assert clip.fps is not None
        assert clip.width is not None
        assert clip.height is not None
        start = _first(config.start_s, clip.start_s, 0.0)
        end = min(_first(config.end_s, clip.end_s, clip.duration_s), clip.duration_s)
        if start >= end:
            raise MediaProblem("span_outside", f"{start:g} to {end:g} s of a clip of {clip.duration_s:g} s")
        size = _shrunk((clip.width, clip.height), short_side=config.short_side)
        fps = config.fps if config.fps is not None and clip.fps > config.fps * _SAME_RATE else None
        has_sound = clip.sample_rate is not None
        is_whole = start <= 0 and end >= clip.duration_s
        if (
            is_whole
            and fps is None
            and size == (clip.width, clip.height)
            and not (has_sound and config.sound == "drop")
        ):
            return None
        return Cut(
            start_s=start,
            end_s=end,
            fps=fps,
            size=size,
            with_sound=has_sound and config.sound == "keep",
            crf=config.crf,
            preset=config.preset,
        )


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _shrunk(size: tuple[int, int], *, short_side: int | None) -> tuple[int, int]:
    short = min(size)
    if short_side is None or short <= short_side:
        return size
    width, height = (round(side * short_side / short) for side in size)
    return width, height


def build(config: Config) -> TrimVideo:
    return TrimVideo(config)
