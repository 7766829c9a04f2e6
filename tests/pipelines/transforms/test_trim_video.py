"""Clips are cut to the frames that belong to the span, turned upright, slowed and shrunk; what fits keeps its bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from pipelines.transforms import load_transforms
from shards.errors import ConfigError
from shards.media import probe_media
from shards.records import Caption, Media, Origin, Record, Reject
from tests.clips import brightness, clip_bytes, turned


def record_of(data: bytes, **changes: Any) -> Record:
    media = replace(probe_media(data, kind="video"), **changes)
    return Record(
        key="clip",
        origin=Origin(dataset="made", split="train", id="7"),
        media=(media,),
        annotations=(Caption(text="a bar moves"),),
        payload={media.member: data},
    )


def trimmed(record: Record, **config: Any) -> Record:
    result = load_transforms([{"kind": "trim_video", **config}])[0](record)
    assert isinstance(result, Record)
    return result


def only(record: Record) -> tuple[Media, bytes]:
    (media,) = record.media
    assert set(record.payload) == {media.member}
    return media, record.payload[media.member]


@pytest.mark.parametrize("config", [{}, {"fps": 10}, {"fps": 30}, {"short_side": 48}, {"end_s": 9}, {"sound": "drop"}])
def test_a_clip_that_is_as_it_should_be_keeps_its_bytes(config: dict[str, Any]) -> None:
    record = record_of(clip_bytes())
    assert trimmed(record, **config) == record


@pytest.mark.parametrize("form", ["mp4", "matroska", "avi", "mpegts"])
def test_the_frames_of_the_span_and_no_others_are_kept(form: str) -> None:
    codec = {"avi": "mpeg4", "mpegts": "mpeg2video"}.get(form, "libx264")
    data = clip_bytes(form=form, codec=codec, frames=50, fps=25)
    media, cut = only(trimmed(record_of(data, start_s=0.4, end_s=1.2)))
    assert (media.member, media.frames, media.fps, media.duration_s) == ("mp4", 20, 25.0, 0.8)
    assert media.start_s is None
    assert brightness(cut) == pytest.approx(brightness(data)[10:30], abs=0.03)


def test_a_lower_rate_shows_what_was_on_the_screen_at_each_tick() -> None:
    data = clip_bytes(frames=20, fps=10)
    media, slow = only(trimmed(record_of(data), fps=2))
    assert (media.frames, media.fps) == (4, 2.0)
    assert brightness(slow) == pytest.approx(brightness(data)[::5], abs=0.03)


def test_a_variable_rate_keeps_its_own_times_and_a_fixed_one_repeats_what_stays() -> None:
    data = clip_bytes(frames=5, times=[0, 10, 20, 120, 200])
    own, _ = only(trimmed(record_of(data), end_s=1.0))
    assert own.frames == 3
    regular, shown = only(trimmed(record_of(data, fps=50.0), fps=5, end_s=1.6))
    assert regular.frames == 8
    light = brightness(data)
    assert brightness(shown) == pytest.approx([light[0], *[light[2]] * 5, *[light[3]] * 2], abs=0.03)


def test_a_turned_clip_is_stored_upright_and_small() -> None:
    data = turned(clip_bytes(frames=4, size=(96, 64)), 1)
    media, small = only(trimmed(record_of(data), short_side=32))
    assert (media.width, media.height) == (32, 48)
    assert probe_media(small, kind="video") == media


def test_sound_is_cut_with_the_pictures_or_dropped() -> None:
    record = record_of(clip_bytes(frames=30, sound=16000))
    kept, data = only(trimmed(record, start_s=1.0, end_s=2.0))
    assert kept.sample_rate == 16000
    assert probe_media(data, kind="audio").duration_s == pytest.approx(1.0, abs=0.15)
    assert only(trimmed(record, sound="drop"))[0].sample_rate is None


def test_a_span_behind_the_end_makes_the_record_a_reject() -> None:
    result = load_transforms([{"kind": "trim_video"}])[0](record_of(clip_bytes(), start_s=5.0, end_s=9.0))
    assert isinstance(result, Reject)
    assert (result.id, result.reason) == ("7", "span_outside")


def test_an_end_before_its_start_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be larger than start_s"):
        load_transforms([{"kind": "trim_video", "start_s": 3, "end_s": 2}])


_ENCODE = """
import hashlib
from pipelines.clip_cutting import Cut, cut_clip
from tests.clips import clip_bytes
cut = Cut(start_s=0.2, end_s=5, fps=5, size=(198, 112), with_sound=True, crf=23, preset="medium")
data = clip_bytes(frames=125, fps=25, size=(320, 180), sound=16000, texture=0.5)
print(hashlib.sha256(cut_clip(data, cut)).hexdigest())
"""


def test_equal_clips_give_equal_bytes_whatever_memory_held_before() -> None:
    """glibc fills memory with another value in each process, so that an encoder which reads unwritten memory is found out."""
    seen = set()
    for fill in ("1", "77", "170"):
        environment = {**os.environ, "MALLOC_PERTURB_": fill, "PYTHONPATH": os.pathsep.join(sys.path)}
        ran = subprocess.run(
            [sys.executable, "-c", _ENCODE], env=environment, capture_output=True, text=True, check=True
        )
        seen |= set(ran.stdout.split())
    assert len(seen) == 1
