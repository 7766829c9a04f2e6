"""Frames of a clip, exactly: whatever its rate does, however its groups of pictures are ordered, wherever it was cut.

The table of presentation times is read from the packets first (milliseconds), frames are addressed by it, and decoding seeks
to the key frame before what is wanted. PyAV is the default because it is exact on every kind of file that was tried;
torchcodec is as exact and can be chosen; decord is offered for those who know that their files are plain ones: it is off by
one on open groups of pictures and wrong on files cut without re-encoding.
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

_SEEK_AHEAD_S = 2.0  # a wanted frame further ahead than about one group of pictures is worth a seek


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
        container = container_of(data)
        check_whole(data, container)
        self._container = open_container(data, container)
        self._stream = picture_stream(self._container, container, max_pixels=MAX_PIXELS)
        # Sorted, because packets lie in decoding order; those that an edit list cuts away are marked.
        self._stamps, self._keys = self._table()

    @property
    def times(self) -> Sequence[float]:
        return self._times

    @cached_property
    def _times(self) -> list[float]:
        return [float(stamp * self._stream.time_base) for stamp in self._stamps]

    @property
    def key_frames(self) -> list[int]:
        """Numbers of the frames that decode by themselves: the cheap ones to take."""
        return [self._stamps.index(stamp) for stamp in self._keys]

    def frames(self, numbers: Sequence[int]) -> Tensor:
        import av

        wanted = sorted({self._stamps[_checked(number, len(self._stamps))] for number in numbers})
        found: dict[int, Tensor] = {}
        try:
            self._decode(wanted, found)
        except av.FFmpegError as problem:
            raise DecodeError(f"its frames cannot be decoded ({problem})") from problem
        if missing := [stamp for stamp in wanted if stamp not in found]:
            raise DecodeError(f"frame {self._stamps.index(missing[0])} of {len(self._stamps)} cannot be decoded")
        return torch.stack([found[self._stamps[number]] for number in numbers])

    def _table(self) -> tuple[list[int], list[int]]:
        import av

        stamps: list[int] = []
        keys: list[int] = []
        try:
            for packet in self._container.demux(self._stream):
                if packet.size and packet.pts is not None and not packet.is_discard:
                    stamps.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append(packet.pts)
        except av.FFmpegError as problem:
            raise DecodeError(f"it breaks off behind frame {len(stamps)} ({problem})") from problem
        if not stamps:
            raise DecodeError("the clip holds no frames with a time")
        return sorted(stamps), sorted(keys)

    def _decode(self, wanted: list[int], found: dict[int, Tensor]) -> None:
        """Seek to each wanted frame that lies far ahead, and decode on to those that are near."""
        ahead = int(_SEEK_AHEAD_S / self._stream.time_base)
        place = 0
        while place < len(wanted):
            self._container.seek(wanted[place], stream=self._stream, backward=True)
            before = place
            for frame in self._container.decode(self._stream):
                if frame.pts is None:
                    continue
                while place < len(wanted) and frame.pts >= wanted[place]:
                    found[wanted[place]] = _displayed(frame)
                    place += 1
                if place == len(wanted) or wanted[place] - frame.pts > ahead:
                    break
            if place == before:
                return  # the seek led nowhere; the caller says which frame is missing


class TorchcodecClip:
    """As exact as PyAV in its exact mode; needs FFmpeg's shared libraries (4 to 8)."""

    def __init__(self, data: bytes) -> None:
        try:
            from torchcodec.decoders import VideoDecoder
        except (ImportError, RuntimeError) as problem:
            raise MissingLibraryError(
                "backend=torchcodec needs torchcodec and FFmpeg's shared libraries: install ostraka[torchcodec] and ffmpeg"
            ) from problem
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
