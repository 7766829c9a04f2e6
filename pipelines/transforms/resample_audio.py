"""Bring sounds to one sample rate and to mono, and cut them to the seconds that their captions are about.

What is encoded again has 16 bits a sample and no loss beside these; a sound that is already as it should be keeps its bytes.
Equal sounds give equal bytes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import PositiveInt

from pipelines.sound_encoding import Sound, encode_sound
from shards.audio import probe_audio
from shards.config import Config as BaseConfig
from shards.media import MediaProblem
from shards.records import Media, Record, Reject


class Config(BaseConfig):
    """The sound tracks of clips are left to `trim_video`."""

    rate: PositiveInt | None = None
    """Samples a second; unset: as found."""
    channels: Literal["mono", "keep"] = "mono"
    """Whether several channels become one, their mean."""
    span: Literal["cut", "keep"] = "cut"
    """Whether a sound is cut to the span that the dataset states (AudioCaps with whole videos), where it states one."""
    form: Literal["wav", "flac", "any"] = "any"
    """`any` leaves the file's kind where nothing else changes, and makes a FLAC otherwise."""


class ResampleAudio:
    """Records without sounds pass unchanged; a sound that cannot be changed so makes its record a reject."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, record: Record) -> Record | Reject:
        media: list[Media] = []
        payload = dict(record.payload)
        for old in record.media:
            try:
                wanted = self._wanted(old) if old.kind == "audio" else None
                if wanted is None:
                    media.append(old)
                    continue
                data = encode_sound(payload.pop(old.member), wanted)
                found = probe_audio(data)
            except MediaProblem as problem:
                return Reject(id=record.origin.id, reason=problem.reason, detail=problem.detail)
            found = replace(found, member=".".join([*old.member.split(".")[:-1], found.member]))
            if self._config.span == "keep":
                found = replace(found, start_s=old.start_s, end_s=old.end_s)
            media.append(found)
            payload[found.member] = data
        return replace(record, media=tuple(media), payload=payload)

    def _wanted(self, old: Media) -> Sound | None:
        """What to do with a sound; None where nothing would change."""
        assert old.duration_s is not None
        assert old.sample_rate is not None
        config = self._config
        start, end = 0.0, None
        if config.span == "cut" and (old.start_s is not None or old.end_s is not None):
            start, end = old.start_s or 0.0, old.end_s
            if start >= old.duration_s:
                raise MediaProblem("span_outside", f"it starts at {start:g} s of a sound of {old.duration_s:g} s")
        rate = config.rate or old.sample_rate
        mono = config.channels == "mono"
        found = old.member.rpartition(".")[2]
        is_same = rate == old.sample_rate and start <= 0 and (end is None or end >= old.duration_s)
        if is_same and not (mono and old.channels != 1) and config.form in {"any", found}:
            return None
        return Sound(
            rate=rate, mono=mono, start_s=start, end_s=end, form="flac" if config.form == "any" else config.form
        )


def build(config: Config) -> ResampleAudio:
    return ResampleAudio(config)
