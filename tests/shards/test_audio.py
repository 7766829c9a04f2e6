"""Sounds: seconds, rate and channels counted by decoding; cuts and samples that are no numbers found; silence kept."""

from __future__ import annotations

import numpy as np
import pytest

from shards.media import probe_media
from shards.records import MediaProblem
from tests.clips import clip_bytes, encoded_sound, float_sound, sound_bytes


def reason(data: bytes) -> str:
    with pytest.raises(MediaProblem) as caught:
        probe_media(data, kind="audio")
    return caught.value.reason


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2), (11127, 1)])
def test_odd_rates_and_channels_are_kept_as_they_are(rate: int, channels: int) -> None:
    media = probe_media(sound_bytes(rate=rate, channels=channels), kind="audio")
    assert (media.sample_rate, media.channels) == (rate, channels)
    assert media.duration_s == pytest.approx(0.5, abs=1 / rate)


@pytest.mark.parametrize("rate", [3, 1_234_567_891])
def test_a_rate_that_no_sound_has_is_a_broken_header(rate: int) -> None:
    data = sound_bytes()
    assert reason(data[:24] + rate.to_bytes(4, "little") + data[28:]) == "unsupported"


def test_silence_is_a_sound() -> None:
    assert probe_media(sound_bytes(volume=0), kind="audio").duration_s == 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_finite_number_is_found_at_the_end(value: float) -> None:
    samples = np.zeros(5000)
    assert probe_media(float_sound(samples), kind="audio").sample_rate == 8000
    samples[-1] = value
    assert reason(float_sound(samples)) == "not_finite"


def test_a_sound_without_samples_has_no_size() -> None:
    assert reason(float_sound([])) in {"zero_size", "truncated_media"}


def test_a_flac_that_breaks_off_is_found() -> None:
    data = encoded_sound("flac", "flac")
    assert reason(data[: len(data) * 2 // 3]) == "truncated_media"


def test_an_mp3_that_breaks_off_is_found_by_its_own_count() -> None:
    data = encoded_sound("mp3", "mp3", sample_format="fltp", seconds=2.0)
    assert probe_media(data, kind="audio").member == "mp3"
    assert reason(data[: len(data) // 2]) == "truncated_media"


def test_the_sound_of_a_clip_is_a_sound_and_a_silent_film_has_none() -> None:
    assert probe_media(clip_bytes(sound=16000), kind="audio").sample_rate == 16000
    assert reason(clip_bytes()) == "unsupported"


def test_a_wav_that_was_written_to_a_pipe_does_not_know_its_size_and_passes() -> None:
    data = sound_bytes()
    at = data.index(b"data") + 4
    unknown = (0x7FFF_F024).to_bytes(4, "little")
    piped = data[:4] + unknown + data[8:at] + (0x7FFF_F000).to_bytes(4, "little") + data[at + 4 :]
    assert probe_media(piped, kind="audio") == probe_media(data, kind="audio")
