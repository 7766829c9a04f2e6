"""A sound as a picture: its log-mel spectrogram, low tones at the bottom, time from left to right."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt

BANDS = 80
COLUMNS = 600  # most columns of the picture
DYNAMIC_DB = 70.0  # below the loudest moment; all that is quieter is one colour
_WINDOW_S = 0.032
# From silence to the loudest: dark brown, clay, sand. One scale for light and dark pages, readable in grey too.
_SCALE = ((0.0, (24, 18, 16)), (0.45, (120, 48, 28)), (0.75, (214, 120, 72)), (1.0, (255, 240, 214)))


def log_mel(samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float64]:
    """Energy of a sound by mel band and time, in dB relative to its loudest cell, within [-DYNAMIC_DB, 0].

    Args:
        samples: (S,) of one channel; a sound shorter than a window is filled up with silence.
        rate: in Hz.

    Returns:
        (BANDS, T) with T at most `COLUMNS`; silence is all at the bottom of the range.
    """
    size = max(16, 1 << round(np.log2(max(2.0, _WINDOW_S * rate))))
    padded = np.pad(samples.astype(np.float64), (0, max(0, size - len(samples))))
    hop = max(size // 4, -(-(len(padded) - size) // (COLUMNS - 1)) if len(padded) > size else 1)
    starts = np.arange(0, len(padded) - size + 1, hop)[:COLUMNS]
    windows = padded[starts[:, None] + np.arange(size)] * np.hanning(size)  # (T, size)
    power = np.abs(np.fft.rfft(windows, axis=1)) ** 2  # (T, size / 2 + 1)
    energy = mel_filters(size, rate) @ power.T  # (BANDS, T)
    loudest = energy.max()
    if loudest <= 0:
        return np.full(energy.shape, -DYNAMIC_DB)
    decibels = 10 * np.log10(np.maximum(energy / loudest, 10 ** (-DYNAMIC_DB / 10)))
    return np.asarray(decibels, dtype=np.float64)


def mel_filters(size: int, rate: int) -> npt.NDArray[np.float64]:
    """Triangles over the bins of a Fourier transform, evenly spaced in mel from 0 Hz to half the rate.

    Returns:
        (BANDS, size / 2 + 1); each row sums to one, so that narrow bands are not darker than wide ones.
    """
    bins = np.arange(size // 2 + 1) * rate / size
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 1400), BANDS + 2) / 2595) - 1)
    low, middle, high = (corners[first : first + BANDS, None] for first in range(3))
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    filters = np.maximum(0, np.minimum(rising, falling))
    # At low tones a triangle may lie between two bins; it then takes the nearest one.
    empty = filters.sum(axis=1) == 0
    filters[np.flatnonzero(empty), np.abs(bins - middle[empty]).argmin(axis=1)] = 1
    return np.asarray(filters / filters.sum(axis=1, keepdims=True), dtype=np.float64)


def spectrogram_picture(samples: npt.NDArray[np.float32], rate: int) -> str:
    """Draw a sound (S,) as a JPEG in a data URI."""
    from PIL import Image

    share = log_mel(samples, rate)[::-1] / DYNAMIC_DB + 1  # (BANDS, T) in [0, 1], high tones first
    places = [place for place, _ in _SCALE]
    pixels = np.stack([np.interp(share, places, [colour[part] for _, colour in _SCALE]) for part in range(3)], axis=-1)
    picture = Image.fromarray(pixels.round().astype(np.uint8)).resize((COLUMNS, 2 * BANDS))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
