"""Clips and sounds in the page: whole where small, else an excerpt, a still in any case, and never more than allowed."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest

from jobs.report.players import (
    EXCERPT_CLIP_S,
    EXCERPT_FPS,
    EXCERPT_SOUND_S,
    EXCERPT_WIDTH,
    playable_clip,
    playable_sound,
)
from shards.records import Media
from tests.jobs.report.modalities import clip, sound

av: Any = pytest.importorskip("av", reason="PyAV is not installed (extra `video`), so no clip can be made or shown")

CLIP = Media(member="mp4", kind="video")
SOUND = Media(member="wav", kind="audio")
AMPLE = 10_000_000


def body(uri: str | None) -> bytes:
    assert uri is not None
    return base64.b64decode(uri.partition(";base64,")[2])


def test_a_small_clip_is_embedded_as_it_was_found() -> None:
    data = clip()
    played = playable_clip(data, CLIP, allowance=AMPLE, where="here")
    assert body(played.source) == data
    assert body(played.still).startswith(b"\xff\xd8")
    assert played.note == ""


@pytest.mark.parametrize(("codec", "container"), [("mpeg4", "avi"), ("mpeg4", "mp4")])
def test_a_clip_that_browsers_do_not_play_becomes_a_short_excerpt_that_they_do(codec: str, container: str) -> None:
    data = clip(seconds=6, codec=codec, container=container, width=640, height=480)
    played = playable_clip(data, CLIP, allowance=AMPLE, where="here")
    with av.open(io.BytesIO(body(played.source))) as opened:
        stream = opened.streams.video[0]
        assert stream.codec_context.name in ("h264", "vp8", "libvpx")
        assert (stream.width, stream.height) == (EXCERPT_WIDTH, 240)
        assert len(list(opened.decode(stream))) == pytest.approx(EXCERPT_CLIP_S * EXCERPT_FPS, abs=2)
    assert "excerpt of 4.0 s" in played.note


def test_an_excerpt_begins_where_the_annotated_span_does() -> None:
    import numpy as np

    data = clip(seconds=6, codec="mpeg4", container="avi")

    def first(media: Media) -> Any:
        with av.open(io.BytesIO(body(playable_clip(data, media, allowance=AMPLE, where="here").source))) as opened:
            return next(opened.decode(video=0)).to_ndarray(format="gray").astype(int)

    with av.open(io.BytesIO(data)) as opened:
        frames = [frame.to_ndarray(format="gray").astype(int) for frame in opened.decode(video=0)]
    late = first(Media(member="avi", kind="video", start_s=1.5, end_s=3.0))
    distances = [np.abs(late - frame).mean() for frame in frames[:24]]
    assert int(np.argmin(distances)) == pytest.approx(15, abs=1)


def test_what_does_not_fit_is_a_still_and_says_so() -> None:
    data = clip(seconds=3)
    still_alone = playable_clip(data, CLIP, allowance=1, where="here")
    assert still_alone.source is None
    assert still_alone.still is not None
    assert "budget" in still_alone.note
    silent = playable_sound(sound(seconds=20), SOUND, allowance=1, where="here")
    assert silent.source is None
    assert silent.still is not None
    assert "budget" in silent.note


def test_a_small_sound_is_embedded_as_found_and_a_long_one_as_an_mp3_of_its_beginning() -> None:
    short = sound()
    assert body(playable_sound(short, SOUND, allowance=AMPLE, where="here").source) == short
    long = playable_sound(sound(seconds=60, rate=44_100), SOUND, allowance=AMPLE, where="here")
    assert (long.source or "").startswith("data:audio/mpeg;")
    with av.open(io.BytesIO(body(long.source)), format="mp3") as opened:
        samples = sum(frame.samples for frame in opened.decode(audio=0))
        assert samples / opened.streams.audio[0].sample_rate == pytest.approx(EXCERPT_SOUND_S, abs=0.15)
    assert long.seconds == pytest.approx(60)


def test_the_spectrogram_shows_the_annotated_span() -> None:
    media = Media(member="wav", kind="audio", start_s=2.0, end_s=3.5)
    assert playable_sound(sound(seconds=5), media, allowance=AMPLE, where="here").seconds == pytest.approx(
        1.5, abs=0.01
    )


@pytest.mark.parametrize("data", [b"", b"no clip at all", clip()[:200], b"RIFF\x00\x00\x00\x00WAVE"])
def test_damaged_media_are_named_and_end_nothing(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    for played in (
        playable_clip(data, CLIP, allowance=AMPLE, where="record 7"),
        playable_sound(data, SOUND, allowance=AMPLE, where="record 7"),
    ):
        assert played.source is None
        assert played.still is None
        assert "cannot be decoded" in played.note
    assert "record 7" in caplog.text
