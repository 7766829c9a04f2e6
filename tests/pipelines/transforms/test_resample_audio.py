"""Sounds come out at one rate, in mono, cut to their span; a tone stays the tone it was, and what fits keeps its bytes."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import av
import numpy as np
import pytest

from pipelines.transforms import load_transforms
from shards.media import probe_media
from shards.records import Caption, Media, Origin, Record, Reject
from tests.clips import clip_bytes, encoded_sound, sound_bytes


def record_of(data: bytes, **changes: Any) -> Record:
    media = replace(probe_media(data, kind="audio"), **changes)
    return Record(
        key="sound",
        origin=Origin(dataset="made", split="train", id="7"),
        media=(media,),
        annotations=(Caption(text="a tone"),),
        payload={media.member: data},
    )


def resampled(record: Record, **config: Any) -> tuple[Media, bytes]:
    result = load_transforms([{"kind": "resample_audio", **config}])[0](record)
    assert isinstance(result, Record)
    (media,) = result.media
    assert set(result.payload) == {media.member}
    return media, result.payload[media.member]


def samples_of(data: bytes) -> Any:
    with av.open(io.BytesIO(data)) as opened:
        return np.concatenate([frame.to_ndarray().ravel() for frame in opened.decode(audio=0)]).astype(float)


@pytest.mark.parametrize("config", [{}, {"rate": 8000}, {"form": "wav"}, {"span": "keep"}])
def test_a_sound_that_is_as_it_should_be_keeps_its_bytes(config: dict[str, Any]) -> None:
    data = sound_bytes()
    assert resampled(record_of(data), **config) == (record_of(data).media[0], data)


@pytest.mark.parametrize("form", ["wav", "flac"])
def test_a_tone_keeps_its_pitch_and_loudness_at_another_rate(form: str) -> None:
    media, data = resampled(record_of(sound_bytes(rate=44100, seconds=1, channels=2)), rate=16000, form=form)
    assert (media.member, media.sample_rate, media.channels, media.duration_s) == (form, 16000, 1, 1.0)
    heard = samples_of(data)
    assert np.abs(np.fft.rfft(heard)).argmax() == 440  # the spectrum of one second has a line for each hertz
    assert np.abs(heard[2000:-2000]).max() == pytest.approx(0.5 * 32767, rel=0.01)


def test_channels_can_be_kept() -> None:
    assert resampled(record_of(sound_bytes(channels=2)), rate=16000, channels="keep")[0].channels == 2


def test_a_lossy_sound_becomes_a_flac_only_when_something_changes() -> None:
    record = record_of(encoded_sound("mp3", "mp3", sample_format="fltp"))
    assert resampled(record, rate=16000)[0].member == "mp3"
    assert resampled(record, rate=8000)[0].member == "flac"


def test_the_span_is_cut_out_and_forgotten_or_kept() -> None:
    data = sound_bytes(seconds=3.0)
    media, cut = resampled(record_of(data, start_s=1.0, end_s=2.5), form="wav")
    assert (media.duration_s, media.start_s) == (1.5, None)
    assert np.array_equal(samples_of(cut), samples_of(data)[8000:20000])
    kept, _ = resampled(record_of(data, start_s=1.0, end_s=2.5), span="keep", rate=4000)
    assert (kept.duration_s, kept.start_s, kept.end_s) == (3.0, 1.0, 2.5)


def test_a_span_behind_the_end_makes_the_record_a_reject() -> None:
    result = load_transforms([{"kind": "resample_audio"}])[0](record_of(sound_bytes(), start_s=30.0, end_s=40.0))
    assert isinstance(result, Reject)
    assert result.reason == "span_outside"


@pytest.mark.parametrize("form", ["wav", "flac"])
def test_equal_sounds_give_equal_bytes(form: str) -> None:
    record = record_of(sound_bytes(rate=44100, channels=2))
    assert resampled(record, rate=16000, form=form) == resampled(record, rate=16000, form=form)


def test_clips_are_left_alone() -> None:
    data = clip_bytes(sound=16000)
    record = replace(record_of(data), media=(probe_media(data, kind="video"),))
    assert resampled(record, rate=8000)[1] == data
