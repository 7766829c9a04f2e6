"""Clips and sounds inside the page: as found where they are small and a browser plays them, else a short excerpt, and a still
picture of each (frames in a row, a log-mel spectrogram) for those who cannot play or print the page.
"""

from __future__ import annotations

import base64
import io
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.report.spectrogram import spectrogram_picture
from shards.containers import container_of, open_container
from shards.errors import MissingLibraryError
from shards.records import Media, MediaProblem

logger = logging.getLogger(__name__)

EXCERPT_CLIP_S = 4.0
EXCERPT_SOUND_S = 10.0
EXCERPT_WIDTH = 320  # pixels of an excerpt
EXCERPT_FPS = 15
STILLS = 4  # frames in the row
STILL_HEIGHT = 120
MOST_WHOLE = 1 << 20  # characters of a clip or sound that is embedded as found, however much room the page has
LONGEST_HEARD_S = 60.0  # of a sound, for its spectrogram
_ENCODERS = (("libx264", "mp4", {"crf": "30", "preset": "veryfast"}), ("libvpx", "webm", {"crf": "34", "b": "300000"}))
_PLAYED_VIDEO = {"mp4": ("h264", "av1", "vp9"), "webm": ("vp8", "vp9", "av1")}
_PLAYED_AUDIO = {"wav": "audio/wav", "mp3": "audio/mpeg", "flac": "audio/flac", "ogg": "audio/ogg", "m4a": "audio/mp4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Playable:
    """What the page holds of a clip or a sound."""

    source: str | None  # data URI to play; None: it was too large, or cannot be decoded
    still: str | None  # data URI of a picture
    note: str  # what was left out; empty where nothing was
    seconds: float = 0.0  # of a sound that the still shows


def playable_clip(data: bytes, media: Media, *, allowance: int, where: str) -> Playable:
    """Make a clip playable within so many characters of the page.

    Args:
        data: the stored clip.
        media: what the record says of it; an excerpt begins where its span does.
        allowance: characters that source and still may take together.
        where: names the record in the log.
    """
    start = media.start_s or 0.0
    try:
        frames, codec, container = _some_frames(data, start_s=start, length_s=EXCERPT_CLIP_S)
        still = _row_of(frames)
        room = allowance - len(still)
        whole = _uri(data, f"video/{container}") if codec in _PLAYED_VIDEO.get(container, ()) else None
        if whole is not None and len(whole) <= min(room, MOST_WHOLE):
            return Playable(source=whole, still=still, note="")
        excerpt, kind = _encode_clip(frames)
    except _failures() as problem:
        logger.warning("%s: its clip cannot be shown (%s)", where, problem)
        return Playable(source=None, still=None, note="it cannot be decoded here")
    source = _uri(excerpt, f"video/{kind}")
    if len(source) > room:
        return Playable(source=None, still=still, note="stills only: the page's budget is spent")
    seconds = len(frames) / EXCERPT_FPS
    return Playable(source=source, still=still, note=f"excerpt of {seconds:.1f} s, {EXCERPT_WIDTH} px, without sound")


def playable_sound(data: bytes, media: Media, *, allowance: int, where: str) -> Playable:
    """Make a sound playable within so many characters of the page; arguments as `playable_clip`."""
    start = media.start_s or 0.0
    try:
        samples, rate = _samples(data, start_s=start, length_s=min((media.end_s or 1e9) - start, LONGEST_HEARD_S))
        still, seconds = spectrogram_picture(samples, rate), len(samples) / rate
        room = allowance - len(still)
        mime = _PLAYED_AUDIO.get(container_of(data).extension)
        whole = _uri(data, mime) if mime is not None else None
        if whole is not None and len(whole) <= min(room, MOST_WHOLE):
            return Playable(source=whole, still=still, note="", seconds=seconds)
        source = _uri(_encode_sound(samples[: round(EXCERPT_SOUND_S * rate)], rate), "audio/mpeg")
    except _failures() as problem:
        logger.warning("%s: its sound cannot be shown (%s)", where, problem)
        return Playable(source=None, still=None, note="it cannot be decoded here")
    if len(source) > room:
        return Playable(source=None, still=still, note="spectrogram only: the page's budget is spent", seconds=seconds)
    heard = min(EXCERPT_SOUND_S, seconds)
    return Playable(source=source, still=still, note=f"excerpt of {heard:.1f} s as MP3", seconds=seconds)


def _failures() -> tuple[type[Exception], ...]:
    """What decoding and encoding raise where a file is odd or a library lacks a part."""
    known = (MediaProblem, MissingLibraryError, OSError, ValueError)
    try:
        import av
    except ImportError:
        return known
    return (*known, av.FFmpegError)


def _some_frames(data: bytes, *, start_s: float, length_s: float) -> tuple[list[Any], str, str]:
    """Frames at `EXCERPT_FPS` of a span as small upright pictures, with the names of codec and container."""
    container = container_of(data)
    frames: list[Any] = []
    with open_container(data, container) as opened:
        stream = opened.streams.best("video")
        if stream is None:
            raise MediaProblem("unsupported", "no stream of pictures")
        stream.codec_context.thread_type = "NONE"
        codec = str(stream.codec_context.name).removeprefix("lib")
        for frame, shown_s in _timed(opened.decode(stream), start_s=start_s):
            picture = None
            while len(frames) / EXCERPT_FPS < min(shown_s[1], length_s):
                # A frame stays until the next: a clip of few frames a second repeats them, one of many skips some.
                picture = picture or _upright(frame)
                frames.append(picture)
            if shown_s[1] >= length_s:
                break
    if not frames:
        raise MediaProblem("zero_size", "no picture in the span that the annotations are about")
    return frames, codec, container.extension


def _timed(decoded: Any, *, start_s: float) -> Iterator[tuple[Any, tuple[float, float]]]:
    """Each frame with the seconds from which and to which it is shown, counted from `start_s` of the clip."""
    zero_s: float | None = None
    held: Any = None
    since_s = span_s = 0.0
    for frame in decoded:
        zero_s = (frame.time or 0.0) if zero_s is None else zero_s
        now_s = (frame.time or 0.0) - zero_s - start_s
        if held is not None:
            span_s = now_s - since_s
            yield held, (since_s, now_s)
        held, since_s = frame, now_s
    if held is not None:
        yield held, (since_s, since_s + (span_s or 1 / EXCERPT_FPS))


def _upright(frame: Any) -> Any:
    """A frame as a picture of `EXCERPT_WIDTH` pixels at most, both sides even, as H.264 wants them."""
    picture = frame.to_image()
    if frame.rotation:
        picture = picture.rotate(frame.rotation, expand=True)
    scale = min(1.0, EXCERPT_WIDTH / picture.width)
    size = [max(2, round(side * scale / 2) * 2) for side in picture.size]
    return picture.resize((size[0], size[1]))


def _row_of(frames: list[Any]) -> str:
    from PIL import Image

    chosen = [frames[number * (len(frames) - 1) // max(1, STILLS - 1)] for number in range(min(STILLS, len(frames)))]
    small = [frame.resize((max(1, round(frame.width * STILL_HEIGHT / frame.height)), STILL_HEIGHT)) for frame in chosen]
    row = Image.new("RGB", (sum(frame.width for frame in small), STILL_HEIGHT))
    left = 0
    for frame in small:
        row.paste(frame, (left, 0))
        left += frame.width
    buffer = io.BytesIO()
    row.save(buffer, format="JPEG", quality=75)
    return _uri(buffer.getvalue(), "image/jpeg")


def _encode_clip(frames: list[Any]) -> tuple[bytes, str]:
    import av

    name, kind, options = next(
        (encoder for encoder in _ENCODERS if encoder[0] in av.codecs_available), (None, None, None)
    )
    if name is None or kind is None:
        raise MediaProblem("unsupported", "PyAV has no encoder for H.264 or VP8 here")
    # Players want the table of contents first, and the encoder can only move it there in a file that has a name.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"excerpt.{kind}"
        with av.open(str(path), "w", options={"movflags": "+faststart"} if kind == "mp4" else {}) as output:
            stream: Any = output.add_stream(name, rate=EXCERPT_FPS, options=options)
            stream.width, stream.height = frames[0].size
            stream.pix_fmt = "yuv420p"
            for number, picture in enumerate(frames):
                frame = av.VideoFrame.from_image(picture)
                frame.pts, frame.time_base = number, Fraction(1, EXCERPT_FPS)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return path.read_bytes(), kind


def _samples(data: bytes, *, start_s: float, length_s: float) -> tuple[npt.NDArray[np.float32], int]:
    """A span of a sound as one channel: float32 (S,) in [-1, 1], and its rate in Hz."""
    container = container_of(data)
    with open_container(data, container) as opened:
        stream = opened.streams.best("audio")
        if stream is None or not stream.sample_rate:
            raise MediaProblem("unsupported", "no stream of sound")
        rate = int(stream.sample_rate)
        first, last = round(start_s * rate), round((start_s + length_s) * rate)
        pieces: list[npt.NDArray[np.float32]] = []
        heard = 0
        for piece in _mono(opened.decode(stream), rate):
            pieces.append(piece)
            heard += len(piece)
            if heard >= last:
                break
    samples = np.concatenate(pieces)[first:last] if pieces else np.zeros(0, np.float32)
    if not len(samples):
        raise MediaProblem("zero_size", "no sound in the span that the annotations are about")
    return samples, rate


def _mono(frames: Any, rate: int) -> Iterator[npt.NDArray[np.float32]]:
    import av

    mixer = av.AudioResampler(format="flt", layout="mono", rate=rate)
    for frame in frames:
        frame.pts = None  # a sound whose times jump is still heard in its order
        for mixed in mixer.resample(frame):
            yield mixed.to_ndarray()[0]


def _encode_sound(samples: npt.NDArray[np.float32], rate: int) -> bytes:
    """MP3 of one channel; every browser plays it, whatever the stored sound's format."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as output:
        stream: Any = output.add_stream("libmp3lame", rate=_MP3_RATE, layout="mono", bit_rate=64_000)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None, :]), format="flt", layout="mono")
        frame.sample_rate = rate
        mixer = av.AudioResampler(format="s16p", layout="mono", rate=_MP3_RATE, frame_size=_MP3_FRAME)
        for ready in [*mixer.resample(frame), *mixer.resample(None)]:
            output.mux(stream.encode(ready))
        output.mux(stream.encode(None))
    return buffer.getvalue()


_MP3_RATE = 32_000
_MP3_FRAME = 1152


def _uri(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
