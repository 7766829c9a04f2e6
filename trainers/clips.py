"""Frames of a clip, exactly: whatever its rate does, however its groups of pictures are ordered, wherever it was cut.

The table of presentation times is read from the packets first (milliseconds), frames are addressed by it, and decoding seeks
to the key frame before what is wanted. Where a file cannot be sought in exactly (transport streams), or holds no presentation
times (AVI), it is decoded from its beginning instead. PyAV is the default because it is exact on every kind of file that was
tried; torchcodec is as exact on all but AVI, which it is not given, and can be chosen; decord is offered for those who know
that their files are plain ones: it is off by one on open groups of pictures and wrong on files cut without re-encoding.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from shards.containers import check_whole, container_of, open_container
from shards.errors import MissingLibraryError
from shards.records import MediaProblem
from shards.video import picture_stream
from trainers.decode import MAX_PIXELS, DecodeError

Backend = Literal["pyav", "torchcodec", "decord"]

_WORTH_A_SEEK = 8  # frames that need not be decoded, where a key frame lies between the last wanted frame and the next


class Clip(Protocol):
    """An opened clip. Not for several threads at once; drop it when its frames are taken."""

    @property
    def times(self) -> Sequence[float]:
        """When each frame comes on screen, in seconds, ascending; its length is the number of frames."""
        ...

    def frames(self, numbers: Sequence[int]) -> Tensor:
        """Decode frames, in the order asked for: (T, 3, H, W) uint8, turned as displayed.

        Raises:
            DecodeError: a frame cannot be decoded.
            IndexError: there is no such frame.
        """
        ...


def open_clip(data: bytes, *, backend: Backend = "pyav") -> Clip:
    """Open a clip.

    Raises:
        DecodeError: the bytes are no clip, or hold no pictures.
        MissingLibraryError: the backend is not installed.
    """
    try:
        return _BACKENDS[backend](data)
    except MediaProblem as problem:
        raise DecodeError(f"not a clip that can be decoded ({problem.detail})") from problem


class PyavClip:
    """Exact on constant and variable rates, B-frames, open groups of pictures, edit lists and every codec of FFmpeg."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._format = container_of(data)
        check_whole(data, self._format)
        self._container, self._stream = self._opened()
        self._stamps, self._keys, self._has_times = self._table()
        self._numbers = {stamp: number for number, stamp in enumerate(self._stamps)}

    @property
    def times(self) -> Sequence[float]:
        return self._times

    @cached_property
    def _times(self) -> list[float]:
        return [float(stamp * self._stream.time_base) for stamp in self._stamps]

    @property
    def key_frames(self) -> list[int]:
        """Numbers of the frames that decode by themselves: the cheap ones to take."""
        return [self._numbers[stamp] for stamp in self._keys]

    def frames(self, numbers: Sequence[int]) -> Tensor:
        import av

        wanted = sorted({_checked(number, len(self._stamps)) for number in numbers})
        found: dict[int, Tensor] = {}
        try:
            if self._has_times:
                self._seek_out(wanted, found)
            self._go_through([number for number in wanted if number not in found], found)
        except av.FFmpegError as problem:
            raise DecodeError(f"its frames cannot be decoded ({problem})") from problem
        if missing := [number for number in wanted if number not in found]:
            raise DecodeError(f"frame {missing[0]} of {len(self._stamps)} cannot be decoded")
        sizes = {(frame.shape[2], frame.shape[1]) for frame in found.values()}
        if len(sizes) > 1:
            raise DecodeError(f"its frames are of several sizes: {sorted(sizes)}")
        return torch.stack([found[number] for number in numbers])

    def _opened(self) -> tuple[Any, Any]:
        opened = open_container(self._data, self._format)
        return opened, picture_stream(opened, self._format, max_pixels=MAX_PIXELS)

    def _table(self) -> tuple[list[int], list[int], bool]:
        """The times of all frames and of the key frames, ascending, and whether a decoded frame can be told by its own."""
        import av

        stamps: list[int] = []
        keys: list[int] = []
        # AVI has no presentation times. FFmpeg makes them up, and not always as it will number the decoded frames.
        has_times = self._format.format != "avi"
        try:
            for packet in self._container.demux(self._stream):
                if not packet.size or packet.is_discard:  # the end, or what an edit list cuts away
                    continue
                has_times = has_times and packet.pts is not None
                stamp = packet.pts if packet.pts is not None else packet.dts
                if stamp is None:
                    raise DecodeError(f"its frame {len(stamps)} has no time; convert the clip to MP4")
                stamps.append(stamp)
                if packet.is_keyframe:
                    keys.append(stamp)
        except av.FFmpegError as problem:
            raise DecodeError(f"it breaks off behind frame {len(stamps)} ({problem})") from problem
        if not stamps:
            raise DecodeError("the clip holds no frames with a time")
        # Sorted, because packets lie in decoding order.
        return sorted(stamps), sorted(keys), has_times and len(set(stamps)) == len(stamps)

    def _seek_out(self, wanted: Sequence[int], found: dict[int, Tensor]) -> None:
        """Decode each wanted frame from the key frame before it, as far as seeking leads there."""
        place = 0
        while place < len(wanted):
            key = self._key_before(wanted[place])
            self._container.seek(self._stamps[key], stream=self._stream, backward=True)
            before = place
            for frame in self._container.decode(self._stream):
                if frame.pts is None or frame.pts < self._stamps[wanted[place]]:
                    continue
                if frame.pts > self._stamps[wanted[place]]:  # the seek led too far
                    break
                found[wanted[place]] = _displayed(frame)
                place += 1
                if place == len(wanted) or self._key_before(wanted[place]) - wanted[place - 1] > _WORTH_A_SEEK:
                    break
            if place == before:
                return

    def _key_before(self, number: int) -> int:
        """The number of the last key frame up to a frame; 0 where there is none, as in a clip cut behind it."""
        place = bisect.bisect_right(self._keys, self._stamps[number])
        return self._numbers[self._keys[place - 1]] if place else 0

    def _go_through(self, wanted: Sequence[int], found: dict[int, Tensor]) -> None:
        """Decode from the beginning of the file until every wanted frame is there."""
        left = set(wanted)
        if not left:
            return
        opened, stream = self._opened()
        with opened:
            for place, frame in enumerate(opened.decode(stream)):
                number = self._numbers.get(frame.pts, -1) if self._has_times else place
                if number in left:
                    found[number] = _displayed(frame)
                    left.remove(number)
                    if not left:
                        return


class TorchcodecClip:
    """As exact as PyAV in its exact mode, AVI left out; needs FFmpeg's shared libraries (4 to 8)."""

    def __init__(self, data: bytes) -> None:
        try:
            from torchcodec.decoders import VideoDecoder
        except (ImportError, RuntimeError) as problem:
            raise MissingLibraryError(
                "backend=torchcodec needs torchcodec and FFmpeg's shared libraries: install ostraka[torchcodec] and ffmpeg"
            ) from problem
        if container_of(data).format == "avi":
            raise DecodeError(
                "AVI holds no presentation times, and torchcodec gives other frames than are asked for; take backend=pyav"
            )
        self._data = data
        try:
            self._decoder: Any = VideoDecoder(data, seek_mode="exact", num_ffmpeg_threads=1)
        except (RuntimeError, ValueError) as problem:
            raise DecodeError(f"not a clip that can be decoded ({_first_line(problem)})") from problem

    @cached_property
    def times(self) -> Sequence[float]:
        return PyavClip(self._data).times  # torchcodec tells a frame's time only with its pixels

    def frames(self, numbers: Sequence[int]) -> Tensor:
        for number in numbers:
            _checked(number, len(self._decoder))
        try:
            decoded: Tensor = self._decoder.get_frames_at(list(numbers)).data
        except RuntimeError as problem:
            raise DecodeError(f"its frames cannot be decoded ({_first_line(problem)})") from problem
        return decoded


class DecordClip:
    """Quick and widely used; wrong on open groups of pictures and on files cut without re-encoding, blind to rotation."""

    def __init__(self, data: bytes) -> None:
        import io

        try:
            import decord
        except ImportError as problem:
            raise MissingLibraryError("backend=decord needs decord: install ostraka[video]") from problem
        try:
            # One thread: more only take the cores of other loader processes.
            self._reader: Any = decord.VideoReader(io.BytesIO(data), ctx=decord.cpu(0), num_threads=1)
        except (decord.DECORDError, RuntimeError) as problem:
            raise DecodeError(f"not a clip that can be decoded ({_first_line(problem)})") from problem

    @property
    def times(self) -> Sequence[float]:
        starts: list[float] = self._reader.get_frame_timestamp(np.arange(len(self._reader)))[:, 0].tolist()
        return starts

    def frames(self, numbers: Sequence[int]) -> Tensor:
        import decord

        for number in numbers:
            _checked(number, len(self._reader))
        try:
            decoded = self._reader.get_batch(list(numbers)).asnumpy()
        except (decord.DECORDError, RuntimeError) as problem:
            raise DecodeError(f"its frames cannot be decoded ({_first_line(problem)})") from problem
        return torch.from_numpy(decoded).permute(0, 3, 1, 2).contiguous()


_BACKENDS: Mapping[Backend, Callable[[bytes], Clip]] = {
    "pyav": PyavClip,
    "torchcodec": TorchcodecClip,
    "decord": DecordClip,
}


def key_frames_near(clip: PyavClip, numbers: Sequence[int]) -> list[int]:
    """For each wanted frame the nearest key frame: about ten times as cheap to decode, and enough for many tasks."""
    keys = clip.key_frames
    near = []
    for number in numbers:
        place = bisect.bisect_left(keys, number)
        around = keys[max(0, place - 1) : place + 1]
        near.append(min(around, key=lambda key: (abs(key - number), key)))
    return near


def _displayed(frame: Any) -> Tensor:
    """A decoded frame as (3, H, W) uint8, turned by its display matrix."""
    pixels = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    if turns:
        pixels = np.rot90(pixels, turns)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _checked(number: int, length: int) -> int:
    if not 0 <= number < length:
        raise IndexError(f"frame {number} of a clip of {length}")
    return number


def _first_line(problem: BaseException) -> str:
    return str(problem).strip().partition("\n")[0]
