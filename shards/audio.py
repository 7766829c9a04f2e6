"""Looking at a sound before it is stored: it is decoded to its end, which is cheap, and every sample must be a number.

Odd sample rates and silence are kept as they are; a rate is changed by the transform `resample_audio`.
"""

from __future__ import annotations

from typing import Any

from shards.containers import Container, after_id3, check_whole, container_of, open_container
from shards.records import Media, MediaProblem

_DIGITS = 6  # of seconds: finer than a sample at any rate in use
_FLOAT_FORMATS = frozenset({"flt", "fltp", "dbl", "dblp"})
_RATES = range(100, 1_000_001)  # Hz; a header that says another is broken, and following it could take all memory
_XING_REACH = 256  # bytes of the first MP3 frame in which its table of contents may begin


def probe_audio(data: bytes) -> Media:
    """Decode a sound to its end and say what it is; the name of its file is not believed.

    Of several sounds in one file it is the one that players choose; the sound track of a clip is a sound, too.

    Raises:
        MediaProblem: the bytes are no sound, break off, hold no sample, or one that is infinite or no number.
        MissingLibraryError: PyAV is not installed.
    """
    container = container_of(data)
    check_whole(data, container)
    with open_container(data, container) as opened:
        stream = sound_stream(opened, container)
        rate, channels = stream.sample_rate, stream.channels
        packets, samples = _decode(opened, stream)
        stated = _stated_samples(stream) if container.format == "flac" else 0  # others give a guess
        if samples < stated:
            raise MediaProblem("truncated_media", f"{samples} of {stated} samples are there")
        if container.format == "mp3" and packets < (frames := _stated_mp3_frames(data)):
            raise MediaProblem("truncated_media", f"{packets} of {frames} MP3 frames are there")
        has_pictures = opened.streams.best("video") is not None
    is_bare_mp4 = container.extension == "mp4" and not has_pictures
    return Media(
        member="m4a" if is_bare_mp4 else container.extension,
        kind="audio",
        duration_s=round(samples / rate, _DIGITS),
        sample_rate=rate,
        channels=channels,
    )


def sound_stream(opened: Any, container: Container) -> Any:
    """The stream of sound that players choose. Raises `MediaProblem` where there is none that can be decoded."""
    stream = opened.streams.best("audio")
    if stream is None:
        raise MediaProblem("unsupported", f"the {container.extension} file has no sound")
    if stream.codec_context is None or not stream.sample_rate:
        raise MediaProblem("unsupported", f"no decoder for the sound of the {container.extension} file")
    check_rate(stream.sample_rate)
    stream.codec_context.thread_type = "NONE"
    return stream


def check_rate(rate: int) -> None:
    """Refuse a rate that no sound has. Raises `MediaProblem`."""
    if rate not in _RATES:
        raise MediaProblem(
            "unsupported",
            f"{rate:,} samples per second are stated, where {_RATES.start} to {_RATES.stop - 1:,} are possible",
        )


def _decode(opened: Any, stream: Any) -> tuple[int, int]:
    """Count the packets and the samples of each channel, and look at every sample."""
    import av
    import numpy as np

    packets = samples = 0
    try:
        for packet in opened.demux(stream):
            packets += bool(packet.size)
            for frame in packet.decode():
                if frame.format.name in _FLOAT_FORMATS and not np.isfinite(frame.to_ndarray()).all():
                    raise MediaProblem(
                        "not_finite",
                        f"a sample behind second {samples / stream.sample_rate:.3f} is infinite or no number",
                    )
                samples += frame.samples
    except (av.FFmpegError, ValueError) as problem:
        raise MediaProblem("truncated_media", f"it breaks off behind {samples} samples: {problem}") from problem
    if not samples:
        raise MediaProblem("zero_size", "the sound holds no sample")
    return packets, samples


def _stated_samples(stream: Any) -> int:
    return round(stream.duration * stream.time_base * stream.sample_rate) if stream.duration else 0


def _stated_mp3_frames(data: bytes) -> int:
    """How many frames an MP3 says it has, in the table that encoders put into its first one; 0 where there is none."""
    start = after_id3(data)
    for name in (b"Xing", b"Info"):
        at = data.find(name, start, start + _XING_REACH)
        if at >= 0 and data[at + 7] & 1:
            return int.from_bytes(data[at + 8 : at + 12], "big")
    return 0
