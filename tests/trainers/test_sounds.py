"""Sounds: exact stretches whatever the container, mono, other rates, and features of the stated shape."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from trainers.decode import DecodeError
from trainers.sounds import FilterBankConfig, LogMelConfig, decode_sound, filter_bank, fit, log_mel, normalised

soundfile = pytest.importorskip("soundfile", reason="the extra `audio` is not installed")
pytest.importorskip("av", reason="the extra `video` is not installed")

RATE = 22_050


def tone(seconds: float, *, rate: int = RATE, hz: float = 440.0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def ramp(samples: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Every sample is its own number, so that a shift by one shows."""
    return np.arange(samples) / 65536.0 - 0.5


def written(
    samples: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    *,
    form: str = "WAV",
    subtype: str = "PCM_24",
    rate: int = RATE,
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, subtype=subtype)
    return buffer.getvalue()


def m4a(samples: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bytes:
    """AAC in MP4, which soundfile cannot read."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=RATE)
        stream.layout = "mono"
        for start in range(0, len(samples), 1024):
            part = samples[None, start : start + 1024].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def varied(seconds: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A rising tone, now and then with noise, so that a coder of variable rate has to vary it."""
    times = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(0).normal(0, 0.1, len(times)) * (np.sin(2 * np.pi * 0.7 * times) > 0)
    return 0.4 * np.sin(2 * np.pi * (200 * times + 60 * times**2)) + noise


@pytest.mark.parametrize(("form", "subtype"), [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("FLAC", "PCM_16")])
@pytest.mark.parametrize("rate", [RATE, 16_000])
def test_a_stretch_is_the_very_part_of_the_whole_sound(form: str, subtype: str, rate: int) -> None:
    buffer = io.BytesIO()
    extras = {"bitrate_mode": "VARIABLE"} if form == "MP3" else {}
    soundfile.write(buffer, varied(4), RATE, format=form, subtype=subtype, **extras)
    whole = decode_sound(buffer.getvalue(), rate=rate)
    for start, length in ((0.0, 1.0), (0.004, 0.2), (1.25, 1.5), (3.5, 0.25), (3.75, 9.0)):
        part = decode_sound(buffer.getvalue(), rate=rate, start_s=start, length_s=length)
        expected = whole[round(start * rate) :][: round(length * rate)]
        # Where no sample of the file lies at the start, the stretch begins with the nearest.
        assert len(part) - len(expected) in ((0,) if rate == RATE else (-1, 0, 1))
        if (start * RATE).is_integer():
            torch.testing.assert_close(part[: len(expected)], expected[: len(part)], atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate", [7_999, 44_101])
def test_rates_without_a_common_step_are_resampled_without_a_table_of_all_phases(
    rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.sounds._resampler", None)
    data = written(tone(3.0, rate=rate), rate=rate)
    expected = tone(3.0, rate=16_000)
    whole = decode_sound(data, rate=16_000).numpy()
    part = decode_sound(data, rate=16_000, start_s=2.0, length_s=0.5).numpy()
    assert abs(len(whole) - len(expected)) <= 1
    assert np.abs(whole[100:-100] - expected[100 : len(whole) - 100]).max() < 2e-3
    assert len(part) == 8_000
    assert np.abs(part - expected[32_000:40_000]).max() < 2e-3


@pytest.mark.parametrize("rate", [3, 1_234_567_891])
def test_a_rate_that_no_sound_has_is_refused(rate: int) -> None:
    data = bytearray(written(tone(0.5)))
    data[24:28] = rate.to_bytes(4, "little")  # where a WAV says it
    with pytest.raises(DecodeError, match=f"{rate:,} samples per second are stated"):
        decode_sound(bytes(data), rate=16_000)


@pytest.mark.parametrize(("form", "subtype"), [("WAV", "PCM_24"), ("FLAC", "PCM_24"), ("WAV", "FLOAT")])
@pytest.mark.parametrize(("start", "length"), [(0.0, None), (0.25, 0.5), (0.3337, 0.1), (0.9, 5.0)])
def test_a_stretch_is_exact_to_the_sample(form: str, subtype: str, start: float, length: float | None) -> None:
    whole = ramp(RATE)
    found = decode_sound(written(whole, form=form, subtype=subtype), rate=RATE, start_s=start, length_s=length)
    first = round(start * RATE)
    last = len(whole) if length is None else first + round(length * RATE)
    assert found.numpy() == pytest.approx(whole[first:last], abs=1e-6)


def test_channels_are_averaged() -> None:
    stereo = np.stack([ramp(1000), -ramp(1000) + 0.25], axis=1)
    assert decode_sound(written(stereo), rate=RATE).numpy() == pytest.approx(np.full(1000, 0.125), abs=1e-6)


def test_another_rate_keeps_pitch_and_length() -> None:
    found = decode_sound(written(tone(1.0, hz=1000.0)), rate=16_000, start_s=0.25, length_s=0.5)
    assert len(found) == 8000
    spectrum = torch.fft.rfft(found).abs()
    assert int(spectrum.argmax()) * 16_000 / len(found) == pytest.approx(1000.0, abs=4.0)


def test_what_soundfile_cannot_read_is_read_all_the_same() -> None:
    clean = tone(1.0)
    found = decode_sound(m4a(clean), rate=RATE, start_s=0.5, length_s=0.25).numpy()
    assert len(found) == round(0.25 * RATE)
    assert np.abs(np.fft.rfft(found)).argmax() == pytest.approx(440 * 0.25, abs=1)


def test_no_sound_and_a_stretch_behind_the_end_are_refused() -> None:
    with pytest.raises(DecodeError, match="not a sound"):
        decode_sound(b"these are only words, and nothing to hear", rate=RATE)
    for data in (written(ramp(1000)), m4a(tone(0.2))):
        with pytest.raises(DecodeError, match="ends before 9 s"):
            decode_sound(data, rate=RATE, start_s=9.0)
    with pytest.raises(ValueError, match="has a length"):
        decode_sound(written(ramp(10)), rate=RATE, length_s=0.0)


def test_a_sound_is_cut_filled_up_or_repeated_to_its_length() -> None:
    wave = torch.arange(1.0, 4.0)
    assert fit(wave, 2, start=1).tolist() == [2.0, 3.0]
    assert fit(wave, 2, start=9).tolist() == [2.0, 3.0]
    assert fit(wave, 5).tolist() == [1.0, 2.0, 3.0, 0.0, 0.0]
    assert fit(wave, 7, repeat=True).tolist() == [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 0.0]


def test_a_tone_lights_one_mel_bin_and_silence_is_the_floor() -> None:
    config = LogMelConfig()
    spectrum = log_mel(torch.from_numpy(tone(1.0, rate=48_000, hz=1000.0)).float(), config)
    assert spectrum.shape == (101, 64)
    assert len(set(spectrum[5:-5].argmax(dim=1).tolist())) == 1
    assert log_mel(torch.zeros(48_000), config).unique().tolist() == [pytest.approx(-100.0)]


def test_a_filter_bank_is_cut_or_filled_before_it_is_normalised() -> None:
    config = FilterBankConfig(bins=32, frames=200)
    bank = filter_bank(torch.from_numpy(tone(1.0, rate=16_000)).float(), config)
    assert bank.shape == (98, 32)
    filled = normalised(bank, config)
    assert filled.shape == (200, 32)
    assert filled[98:].unique().tolist() == [pytest.approx(-config.mean / (2 * config.std))]
    assert normalised(bank, FilterBankConfig(bins=32, frames=50)).shape == (50, 32)
