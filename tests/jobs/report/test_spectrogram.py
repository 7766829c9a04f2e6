"""Spectrograms: a tone is bright at its pitch, silence is dark, every length gives a picture of bounded size."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
import pytest

from jobs.report.spectrogram import BANDS, COLUMNS, DYNAMIC_DB, log_mel, mel_filters, spectrogram_picture


def tone(pitch_hz: float, rate: int, seconds: float) -> npt.NDArray[np.float32]:
    return np.sin(2 * np.pi * pitch_hz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def test_a_higher_tone_is_brightest_in_a_higher_band() -> None:
    bands = [int(log_mel(tone(pitch, 16_000, 0.5), 16_000).mean(axis=1).argmax()) for pitch in (200, 800, 3000, 7000)]
    assert bands == sorted(set(bands))


def test_a_tone_that_stops_is_dark_afterwards() -> None:
    sound = np.concatenate([tone(440, 16_000, 1.0), np.zeros(16_000, np.float32)])
    levels = log_mel(sound, 16_000).max(axis=0)
    assert levels[: len(levels) // 3].min() > -6
    assert levels[-len(levels) // 3 :].max() == pytest.approx(-DYNAMIC_DB)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_every_filter_hears_something_and_none_is_louder_than_another(rate: int) -> None:
    filters = mel_filters(1024, rate)
    assert filters.shape == (BANDS, 513)
    assert np.allclose(filters.sum(axis=1), 1)
    assert (filters >= 0).all()


@pytest.mark.parametrize("samples", [1, 100, 16_000, 960_000])
def test_any_length_gives_a_picture_of_bounded_size(samples: int) -> None:
    levels = log_mel(np.ones(samples, np.float32), 16_000)
    assert levels.shape[0] == BANDS
    assert 1 <= levels.shape[1] <= COLUMNS
    assert np.isfinite(levels).all()


def test_silence_is_drawn_and_is_one_dark_colour() -> None:
    from PIL import Image

    uri = spectrogram_picture(np.zeros(8_000, np.float32), 8_000)
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        low, high = zip(*picture.getextrema(), strict=True)
        assert max(high) < 60
        assert np.subtract(high, low).max() <= 2
