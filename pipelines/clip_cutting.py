"""Cutting a part out of a clip and encoding it again, to the same bytes each time: H.264 and AAC in an MP4.

One thread, encoders and muxer told to leave out versions and times, and frames chosen by their timestamps alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pipelines.sound_encoding import pulled
from shards.containers import Container, container_of, open_container
from shards.media import MAX_PIXELS, MediaProblem
from shards.video import picture_stream

_EPSILON_S = 1e-6  # the noise of a division by a time base
_SEEKABLE = frozenset({"mov", "matroska"})  # containers in which a seek surely ends before its target
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_AAC_FRAME = 1024  # samples
# The encoder's look at macroblocks to come reads memory that it has not written (found with glibc's MALLOC_PERTURB_), so that
# equal clips came out as different bytes; without it they are equal on every x86 instruction set since SSSE3.
_REPEATABLE = "mbtree=0"
# The scaler's fast paths differ between processors in the last bit; these flags hold it to the exact ones.
_SCALER = "flags=bicubic+accurate_rnd+bitexact+full_chroma_int"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What to make of a clip. Seconds count from its first picture."""

    start_s: float
    end_s: float
    fps: float | None  # None: the pictures keep their own times, however regular these are
    size: tuple[int, int]  # width and height as displayed; made even, as the encoder wants it
    with_sound: bool
    crf: int
    preset: str


def cut_clip(data: bytes, cut: Cut) -> bytes:
    """Decode a clip's part, upright and in the new size, and encode it again.

    Raises:
        MediaProblem: the clip cannot be decoded, or holds no picture between the two times.
    """
    import av

    output = io.BytesIO()
    try:
        with av.open(output, "w", format="mp4") as muxer:
            muxer.flags |= av.container.Flags.bitexact.value
            packets = _encoded_pictures(data, cut, muxer)
            if cut.with_sound:
                packets += _encoded_sound(data, cut, muxer)
            # A player reads pictures and sound side by side, so that is how they are stored.
            for packet in sorted(packets, key=lambda packet: (packet.dts * packet.time_base, packet.stream.index)):
                muxer.mux(packet)
    except (av.FFmpegError, ValueError) as problem:
        raise MediaProblem("truncated_media", f"it cannot be decoded and encoded again: {problem}") from problem
    return output.getvalue()


def _encoded_pictures(data: bytes, cut: Cut, muxer: Any) -> list[Any]:
    import av

    container = container_of(data)
    with open_container(data, container) as opened:
        source = picture_stream(opened, container, max_pixels=MAX_PIXELS)
        rate = Fraction(cut.fps).limit_denominator(1001) if cut.fps else source.average_rate
        time_base = 1 / rate if cut.fps else source.time_base
        target = muxer.add_stream(
            "libx264",
            rate=rate,
            options={"crf": str(cut.crf), "preset": cut.preset, "threads": "1", "x264-params": _REPEATABLE},
        )
        target.width, target.height = (max(2, side // 2 * 2) for side in cut.size)
        target.pix_fmt = "yuv420p"
        target.codec_context.time_base = time_base
        target.codec_context.flags |= av.codec.context.Flags.bitexact.value
        target.codec_context.thread_count = 1
        frames = _between(opened, source, cut, container=container)
        if cut.fps:
            frames = _at_rate(frames, fps=rate, length_s=cut.end_s - cut.start_s)
        packets: list[Any] = []
        upright: _Upright | None = None
        for time_s, frame in frames:
            upright = upright or _Upright(source, frame, size=(target.width, target.height))
            picture = upright(frame)
            picture.pts, picture.time_base = round(time_s / time_base), time_base
            picture.pict_type = 0  # else each key frame of the old clip would force one in the new
            packets.extend(target.encode(picture))
        if upright is None:
            raise MediaProblem("span_outside", f"no picture between {cut.start_s:g} and {cut.end_s:g} s")
        return [*packets, *target.encode(None)]


def _between(opened: Any, stream: Any, cut: Cut, *, container: Container) -> Iterator[tuple[float, Any]]:
    """The pictures of a span, with seconds from its start."""
    first = stream.start_time or 0
    if container.format in _SEEKABLE and cut.start_s > 0:
        opened.seek(first + int(cut.start_s / stream.time_base), stream=stream, backward=True)
    for number, frame in enumerate(opened.decode(stream)):
        if container.format == "avi":  # it stores the order of decoding, not times, and has one rate
            time_s = float(number / stream.average_rate)
        elif frame.pts is not None:
            time_s = float((frame.pts - first) * stream.time_base)
        else:
            continue
        if time_s >= cut.end_s - _EPSILON_S:
            return
        if time_s >= cut.start_s - _EPSILON_S:
            yield max(0.0, time_s - cut.start_s), frame


def _at_rate(frames: Iterator[tuple[float, Any]], *, fps: Fraction, length_s: float) -> Iterator[tuple[float, Any]]:
    """At each tick of the rate the picture that is on the screen then; the first one from the start on."""
    tick = 0
    shown: Any = None
    for time_s, frame in frames:
        while shown is not None and tick / fps < time_s - _EPSILON_S:
            yield float(tick / fps), shown
            tick += 1
        shown = frame
    while shown is not None and tick / fps < length_s - _EPSILON_S:
        yield float(tick / fps), shown
        tick += 1


class _Upright:
    """Turns, scales and converts pictures as the first one needs it."""

    def __init__(self, stream: Any, first: Any, *, size: tuple[int, int]) -> None:
        import av

        # A decoder says by how much to turn a picture, counter-clockwise, for it to be upright.
        turns = {90: ["transpose=cclock"], -90: ["transpose=clock"], 180: ["hflip", "vflip"], -180: ["hflip", "vflip"]}
        steps = turns.get(first.rotation, [])
        displayed = (first.height, first.width) if first.rotation % 180 else (first.width, first.height)
        if displayed != size or first.format.name != "yuv420p":
            steps = [*steps, f"scale={size[0]}:{size[1]}:{_SCALER}", "format=yuv420p"]
        self._graph: Any = av.filter.Graph() if steps else None
        if self._graph is not None:
            self._graph.threads = 1
            nodes = [self._graph.add_buffer(template=stream), *(_node(self._graph, step) for step in steps)]
            self._graph.link_nodes(*nodes, self._graph.add("buffersink")).configure()

    def __call__(self, frame: Any) -> Any:
        if self._graph is None:
            return frame
        self._graph.vpush(frame)
        return self._graph.vpull()


def _encoded_sound(data: bytes, cut: Cut, muxer: Any) -> Sequence[Any]:
    import av

    container = container_of(data)
    with open_container(data, container) as opened:
        source = opened.streams.best("audio")
        if source is None:
            return []
        source.codec_context.thread_type = "NONE"
        rate = min((rate for rate in _AAC_RATES if rate >= source.sample_rate), default=_AAC_RATES[-1])
        target = muxer.add_stream("aac", rate=rate, layout="mono" if source.channels == 1 else "stereo")
        target.codec_context.flags |= av.codec.context.Flags.bitexact.value
        pictures = opened.streams.best("video")
        start_s = cut.start_s + float((pictures.start_time or 0) * pictures.time_base)  # the clip's own zero
        graph = av.filter.Graph()
        layout = "mono" if source.channels == 1 else "stereo"
        steps = [
            f"atrim=start={start_s:.6f}:end={start_s + cut.end_s - cut.start_s:.6f}",
            f"asetpts=PTS-{start_s:.6f}/TB",
            f"aresample={rate}",
            f"aformat=sample_fmts=fltp:channel_layouts={layout}",
            f"asetnsamples=n={_AAC_FRAME}:p=0",
        ]
        nodes = [graph.add_abuffer(template=source), *(_node(graph, step) for step in steps)]
        graph.link_nodes(*nodes, graph.add("abuffersink")).configure()
        packets: list[Any] = []
        for frame in (*opened.decode(source), None):
            try:
                graph.push(frame)
            except av.EOFError:  # the span has ended, and the filter takes no more
                break
            for sound in pulled(graph):
                packets.extend(target.encode(sound))
        return [*packets, *target.encode(None)]


def _node(graph: Any, step: str) -> Any:
    name, _, arguments = step.partition("=")
    return graph.add(name, arguments or None)
