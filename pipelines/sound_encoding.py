"""Bringing a sound to another rate, to one channel, or to a part of it, always as the same 16-bit samples, in WAV or FLAC."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from shards.audio import sound_stream
from shards.containers import container_of, open_container
from shards.media import MediaProblem

_BYTES = 2  # of a sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """What to make of a sound. Seconds count from its first sample; an end of None is its own."""

    rate: int
    mono: bool
    start_s: float
    end_s: float | None
    form: Literal["wav", "flac"]


def encode_sound(data: bytes, sound: Sound) -> bytes:
    """Decode, cut, resample and mix a sound, and store it without loss.

    Raises:
        MediaProblem: the sound cannot be decoded, or has no sample between the two times.
    """
    import av

    container = container_of(data)
    try:
        with open_container(data, container) as opened:
            stream = sound_stream(opened, container)
            channels = 1 if sound.mono else stream.channels
            samples = b"".join(_samples(opened, stream, sound, channels=channels))
    except (av.FFmpegError, ValueError) as problem:
        raise MediaProblem("truncated_media", f"it cannot be decoded and resampled: {problem}") from problem
    if not samples:
        raise MediaProblem("span_outside", f"no sample behind {sound.start_s:g} s")
    if sound.form == "wav":
        return _wav(samples, rate=sound.rate, channels=channels)
    return _flac(samples, rate=sound.rate, channels=channels)


def _samples(opened: Any, stream: Any, sound: Sound, *, channels: int) -> Iterator[bytes]:
    """Interleaved 16-bit samples, as little-endian bytes."""
    import av

    first_s = float((stream.start_time or 0) * stream.time_base)
    end = "" if sound.end_s is None else f":end={first_s + sound.end_s:.6f}"
    layout = "mono" if channels == 1 else stream.layout.name
    steps = [
        ("atrim", f"start={first_s + sound.start_s:.6f}{end}"),
        # In double precision processors differ too little to change a rounded sample; in single precision they do.
        ("aresample", f"{sound.rate}:internal_sample_fmt=dblp"),
        ("aformat", f"sample_fmts=s16:channel_layouts={layout}"),
    ]
    graph = av.filter.Graph()
    graph.threads = 1
    nodes = [graph.add_abuffer(template=stream), *(graph.add(name, arguments) for name, arguments in steps)]
    graph.link_nodes(*nodes, graph.add("abuffersink")).configure()
    for frame in (*opened.decode(stream), None):
        try:
            graph.push(frame)
        except av.EOFError:  # the span has ended, and the filter takes no more
            return
        yield from (bytes(ready.to_ndarray().astype("<i2", copy=False).tobytes()) for ready in pulled(graph))


def pulled(graph: Any) -> Iterator[Any]:
    """All frames that a filter graph has ready."""
    import av

    while True:
        try:
            yield graph.pull()
        except (av.BlockingIOError, av.EOFError):  # it wants more, or has given all
            return


def _wav(samples: bytes, *, rate: int, channels: int) -> bytes:
    output = io.BytesIO()
    with wave.open(output, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(_BYTES)
        file.setframerate(rate)
        file.writeframes(samples)
    return output.getvalue()


def _flac(samples: bytes, *, rate: int, channels: int) -> bytes:
    import av

    output = io.BytesIO()
    with av.open(io.BytesIO(_wav(samples, rate=rate, channels=channels)), format="wav") as opened:
        source = opened.streams.audio[0]
        with av.open(output, "w", format="flac") as muxer:
            muxer.flags |= av.container.Flags.bitexact.value
            # Fixed predictors need whole numbers only, so that the bytes are the same on every processor; 3 % larger.
            target = muxer.add_stream("flac", rate=rate, layout=source.layout.name, options={"lpc_type": "fixed"})
            target.codec_context.flags |= av.codec.context.Flags.bitexact.value
            target.codec_context.thread_count = 1
            for frame in opened.decode(source):
                muxer.mux(target.encode(frame))
            muxer.mux(target.encode(None))
    return output.getvalue()
