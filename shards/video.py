"""Looking at a clip before it is stored: every packet of its pictures is counted, its first picture and last key frame are decoded.

Decoding all of a clip would cost a hundred times as much and find little more: a file that breaks off shows in its table of
contents, in a packet that is not there, or in a key frame that no longer decodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shards.containers import Container, check_whole, container_of, open_container
from shards.records import Media, MediaProblem

_DIGITS = 6  # of seconds and rates: finer than any time base of a clip, coarser than the noise of a division
_VIDEO_EXTENSIONS = {"ogg": "ogv", "m4a": "mp4"}  # where pictures are in a file that sounds are usually in


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pictures:
    """The stream of pictures, read to its end."""

    count: int
    duration_s: float
    width: int  # as displayed
    height: int


def probe_video(data: bytes, *, max_pixels: int) -> Media:
    """Count a clip to its end and say what it is; the name of its file is not believed.

    Width and height are as displayed, after the rotation that a phone writes; pixels that are not square stay as they are.
    Of several streams of pictures it is the one that players choose; `sample_rate` and `channels` are of its sound.

    Raises:
        MediaProblem: the bytes are no clip, hold no pictures, break off, or its pictures have more than `max_pixels`.
        MissingLibraryError: PyAV is not installed.
    """
    container = container_of(data)
    check_whole(data, container)
    with open_container(data, container) as opened:
        stream = picture_stream(opened, container, max_pixels=max_pixels)
        sound = opened.streams.best("audio")
        has_sound = (
            sound is not None and sound.codec_context is not None
        )  # a track that nothing here can decode is none
        pictures = _read(opened, stream)
        return Media(
            member=_VIDEO_EXTENSIONS.get(container.extension, container.extension),
            kind="video",
            width=pictures.width,
            height=pictures.height,
            frames=pictures.count,
            fps=round(pictures.count / pictures.duration_s, _DIGITS),
            duration_s=round(pictures.duration_s, _DIGITS),
            sample_rate=sound.sample_rate if has_sound else None,
            channels=sound.channels if has_sound else None,
        )


def picture_stream(opened: Any, container: Container, *, max_pixels: int) -> Any:
    """The stream of pictures that players choose, ready to be decoded by one thread. Raises `MediaProblem` where there is none."""
    import av

    stream = opened.streams.best("video")
    if stream is None or stream.disposition & av.stream.Disposition.attached_pic:  # the cover of a song is no clip
        raise MediaProblem("unsupported", f"the {container.extension} file has no stream of pictures")
    codec = stream.codec_context
    if codec is None:
        raise MediaProblem("unsupported", f"no decoder for the pictures of the {container.extension} file")
    if codec.width * codec.height > max_pixels:
        raise MediaProblem("decompression_bomb", f"{codec.width}x{codec.height} pixels are more than {max_pixels}")
    codec.thread_type = "NONE"
    return stream


def displayed_size(frame: Any) -> tuple[int, int]:
    """Width and height of a decoded frame after its rotation."""
    return (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)


def _read(opened: Any, stream: Any) -> _Pictures:
    import av

    size: tuple[int, int] | None = None
    times: list[int] = []
    spans: list[int] = []
    last_key = last = None
    try:
        for packet in opened.demux(stream):
            if packet.size and packet.is_corrupt:
                raise MediaProblem("truncated_media", f"a packet behind frame {len(times)} is cut")
            if (
                size is None
            ):  # a decoder may want several packets, and the empty one at the end, before its first picture
                size = next((displayed_size(frame) for frame in packet.decode()), None)
            if packet.size and not packet.is_discard:
                last = packet
                last_key = packet if packet.is_keyframe else last_key
                times.append(packet.pts if packet.pts is not None else packet.dts or 0)
                spans.append(packet.duration or 0)
        if last is None:
            raise MediaProblem("zero_size", "the clip holds no pictures")
        # A clip cut without re-encoding may begin behind its only key frame; its first picture has been decoded already.
        if size is None or not any(bytes(last)) or (last_key is not None and not _decodes(stream, last_key)):
            raise MediaProblem("truncated_media", f"its pictures cannot be decoded, {len(times)} are listed")
    except (av.FFmpegError, ValueError) as problem:
        raise MediaProblem("truncated_media", f"it breaks off behind frame {len(times)}: {problem}") from problem
    return _Pictures(
        count=len(times), duration_s=_duration_s(times, spans, stream=stream), width=size[0], height=size[1]
    )


def _decodes(stream: Any, packet: Any) -> bool:
    """Whether a key frame gives a picture by itself."""
    codec = stream.codec_context
    codec.flush_buffers()
    return bool([*codec.decode(packet), *codec.decode(None)])


def _duration_s(times: list[int], spans: list[int], *, stream: Any) -> float:
    """From the first picture to the end of the last; where the file does not say how long that one stays, as long as the others."""
    first, last = min(times), max(times)
    shown = spans[times.index(last)]
    if shown <= 0 and last > first:
        return float((last - first) * stream.time_base) * len(times) / (len(times) - 1)
    if shown <= 0 or stream.time_base is None:
        return 1.0 / float(stream.average_rate or 1)
    return float((last - first + shown) * stream.time_base)
