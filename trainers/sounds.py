"""Sounds for training: exact start and length, mono, one sample rate, and the spectral features that families want.

WAV, FLAC, OGG and MP3 are read by soundfile, which is the quickest and can start anywhere in the first two; what it cannot read
(m4a, the sound track of a clip) by PyAV.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from shards.audio import check_rate, sound_stream
from shards.config import Config
from shards.containers import container_of, open_container
from shards.errors import MissingLibraryError
from shards.records import MediaProblem
from trainers.decode import DecodeError

_SOUNDFILE_READS = frozenset({"wav", "flac", "ogg", "mp3"})  # tar extensions
# Seeking in the others is wrong for soundfile in MP3s of variable rate and near the end of Vorbis.
_SOUGHT_EXACTLY = frozenset({"WAV", "WAVEX", "RF64", "FLAC"})  # its names of formats
_LARGEST_FILTER = 1 << 20  # numbers of a resampling filter
_MARGIN_S = 0.01  # of sound beside a stretch: more than the reach of the resampling filter


def decode_sound(
    data: bytes,
    *,
    rate: int,
    start_s: float = 0.0,
    length_s: float | None = None,
) -> Tensor:
    """Decode a stretch of a sound to mono at a sample rate: (samples,) float32 within about [-1, 1].

    Channels are averaged. A stretch that reaches beyond the end is what is there of it; its length is exact to the sample:
    `round(length_s * rate)` where the sound lasts that long, and it is the very part of the sound: resampling knows what
    comes before and after it.

    Args:
        data: the file.
        rate: samples per second wanted.
        start_s: where the stretch begins.
        length_s: how long it is; None: to the end.

    Raises:
        DecodeError: the bytes are no sound or break off, or the stretch begins behind the end.
        MissingLibraryError: soundfile, PyAV or torchaudio is not installed.
    """
    if start_s < 0 or (length_s is not None and length_s <= 0):
        raise ValueError(f"start_s={start_s}, length_s={length_s}: a stretch starts at 0 or later and has a length")
    try:
        extension = container_of(data).extension
        read = _by_soundfile if extension in _SOUNDFILE_READS else _by_pyav
        part = read(data, start_s, length_s, rate)
    except MediaProblem as problem:
        raise DecodeError(f"not a sound that can be decoded ({problem.detail})") from problem
    if len(part.samples) <= part.lead:
        raise DecodeError(f"the sound ends before {start_s:g} s")
    mono = torch.from_numpy(part.samples.mean(axis=1, dtype=np.float32))
    if part.rate != rate:
        mono = _resampled(mono, part.rate, rate)[part.lead * rate // part.rate :]
    return mono if length_s is None else mono[: round(length_s * rate)]


def fit(waveform: Tensor, samples: int, *, start: int = 0, repeat: bool = False) -> Tensor:
    """Cut a sound from `start`, or lengthen it with silence, to exactly `samples`.

    Args:
        waveform: (n,).
        samples: wanted.
        start: first sample of the cut, where there are more.
        repeat: play a short sound again and again as often as it fits whole, before silence, as CLAP and UnIVAL do.
    """
    if len(waveform) >= samples:
        start = min(start, len(waveform) - samples)
        return waveform[start : start + samples]
    if repeat and len(waveform):
        waveform = waveform.repeat(samples // len(waveform))
    return torch.nn.functional.pad(waveform, (0, samples - len(waveform)))


class LogMelConfig(Config):
    """A log-mel spectrogram over short-time Fourier windows, as PANN (Kong et al., 2020) and UnIVAL feed their networks."""

    rate: PositiveInt = 48_000
    window: PositiveInt = 1024
    hop: PositiveInt = 480
    bins: PositiveInt = 64
    low_hz: float = Field(default=50.0, ge=0)
    high_hz: PositiveFloat = 14_000.0
    floor: PositiveFloat = 1e-10
    """powers below count as this"""


def log_mel(waveform: Tensor, config: LogMelConfig) -> Tensor:
    """(samples,) → (frames, bins) float32 in decibels, one frame per hop, the first centred on sample 0."""
    power: Tensor = _mel(config)(waveform)
    return 10.0 * torch.log10(power.clamp(min=config.floor)).T


class FilterBankConfig(Config):
    """Kaldi's log filter bank as AST (Gong et al., 2021) and eP-ALM take it: 25 ms Hanning frames every 10 ms, no dither."""

    rate: PositiveInt = 16_000
    bins: PositiveInt = 128
    frames: PositiveInt = 1024
    """cut or filled up with zero rows to this length"""
    mean: float = -4.2677393
    std: PositiveFloat = 4.5689974
    """normalised to (x - mean) / (2 std)"""


def filter_bank(waveform: Tensor, config: FilterBankConfig) -> Tensor:
    """(samples,) or (channels, samples) → (n, bins): the mean is taken off over all, the first channel is analysed.

    Raises:
        MissingLibraryError: torchaudio is not installed.
    """
    centred = waveform - waveform.mean()
    channels = centred if centred.dim() == 2 else centred[None]
    found: Tensor = _kaldi().fbank(
        channels,
        htk_compat=True,
        sample_frequency=float(config.rate),
        use_energy=False,
        window_type="hanning",
        num_mel_bins=config.bins,
        dither=0.0,
        frame_shift=10.0,
    )
    return found


def normalised(bank: Tensor, config: FilterBankConfig) -> Tensor:
    """(n, bins) → (frames, bins): cut or filled up with zeros first, normalised after, so that silence is not zero."""
    filled = torch.nn.functional.pad(bank[: config.frames], (0, 0, 0, max(0, config.frames - len(bank))))
    return (filled - config.mean) / (2 * config.std)


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of a sound as it is stored, with what resampling needs around it."""

    samples: np.ndarray[Any, Any]  # (n, channels) float32
    lead: int  # of them, those before the stretch
    rate: int


def _by_soundfile(data: bytes, start_s: float, length_s: float | None, wanted: int) -> _Part:
    try:
        import soundfile
    except ImportError as problem:
        raise MissingLibraryError("sounds need soundfile: install ostraka[audio]") from problem
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            rate = int(sound.samplerate)
            check_rate(rate)
            start = round(start_s * rate)
            if start >= sound.frames:
                return _Part(np.zeros((0, 1), dtype=np.float32), 0, rate)
            lead = _lead(start, rate, wanted)
            count = None if length_s is None else _samples_for(length_s, rate)
            skipped = start - lead
            if sound.format in _SOUGHT_EXACTLY:
                sound.seek(skipped)
                skipped = 0
            # In one piece: soundfile seeks behind every piece that it reads.
            samples = sound.read(-1 if count is None else skipped + lead + count, dtype="float32", always_2d=True)
            return _Part(samples[skipped:], lead, rate)
    except soundfile.LibsndfileError:
        return _by_pyav(data, start_s, length_s, wanted)  # an odd WAV: FFmpeg knows more codecs


def _by_pyav(data: bytes, start_s: float, length_s: float | None, wanted: int) -> _Part:
    """Decode from the beginning: seeking in compressed sound is not exact to the sample."""
    import av

    container = container_of(data)
    with open_container(data, container) as opened:
        stream = sound_stream(opened, container)
        rate = int(stream.sample_rate)
        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
        start, count = round(start_s * rate), None if length_s is None else _samples_for(length_s, rate)
        parts: list[np.ndarray[Any, Any]] = []
        have = 0
        try:
            for frame in opened.decode(stream):
                for same in resampler.resample(frame):
                    parts.append(same.to_ndarray().T)
                    have += len(parts[-1])
                if count is not None and have >= start + count:
                    break
        except av.FFmpegError as problem:
            raise DecodeError(f"the sound breaks off behind {have / rate:.2f} s ({problem})") from problem
    whole = np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)
    lead = _lead(start, rate, wanted)
    return _Part(whole[start - lead : None if count is None else start + count], lead, rate)


def _lead(start: int, rate: int, wanted: int) -> int:
    """How many samples to read before a stretch for resampling: a time that is a whole number of samples at both rates."""
    if rate == wanted:
        return 0
    step = rate // math.gcd(rate, wanted)
    return min(math.ceil(_MARGIN_S * rate / step), start // step) * step


def _samples_for(length_s: float, rate: int) -> int:
    """A few more than the stretch holds, so that resampling has what it needs at the end."""
    return round(length_s * rate) + int(_MARGIN_S * rate)


def _resampled(mono: Tensor, found: int, wanted: int) -> Tensor:
    """(n,) at one rate → (about n · wanted / found,) at another."""
    common = math.gcd(found, wanted)
    if (found // common) * (wanted // common) <= _LARGEST_FILTER:
        resampled: Tensor = _resampler(found, wanted)(mono[None])[0]
        return resampled
    # 44,101 Hz and 16,000 Hz have no step in common: torchaudio's table of all phases would take gigabytes.
    try:
        import av
    except ImportError as problem:
        raise MissingLibraryError(f"a sound of {found} Hz needs PyAV: install ostraka[video]") from problem
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=wanted)
    frame = av.AudioFrame.from_ndarray(mono.numpy()[None], format="fltp", layout="mono")
    frame.rate = found
    parts = [part.to_ndarray()[0] for given in (frame, None) for part in resampler.resample(given)]
    return torch.from_numpy(np.concatenate(parts))


@lru_cache(64)
def _resampler(found: int, wanted: int) -> Any:
    # The filter is worth keeping: making it costs as much as using it on ten seconds.
    return _torchaudio().transforms.Resample(found, wanted)


@lru_cache(16)
def _mel(config: LogMelConfig) -> Any:
    return _torchaudio().transforms.MelSpectrogram(
        sample_rate=config.rate,
        n_fft=config.window,
        hop_length=config.hop,
        f_min=config.low_hz,
        f_max=config.high_hz,
        n_mels=config.bins,
        norm="slaney",
        mel_scale="slaney",
        center=True,
        pad_mode="reflect",
    )


def _kaldi() -> Any:
    _torchaudio()
    import torchaudio.compliance.kaldi

    return torchaudio.compliance.kaldi


def _torchaudio() -> Any:
    try:
        import torchaudio
    except ImportError as problem:
        raise MissingLibraryError("features of sounds need torchaudio: install ostraka[audio]") from problem
    return torchaudio
