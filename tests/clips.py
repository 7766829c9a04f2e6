"""Clips and sounds made in code: a bar that moves by one step a frame, and a tone."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np


def clip_bytes(
    *,
    form: str = "mp4",
    codec: str = "libx264",
    frames: int = 20,
    fps: int = 10,
    size: tuple[int, int] = (64, 48),
    times: Sequence[int] | None = None,
    sound: int | None = None,
    texture: float = 0.0,
) -> bytes:
    """Encode a clip; `times` are ticks of a hundredth of a second, `sound` is the sample rate of a tone beside it.

    `texture` is how much of the pictures is a drifting pattern of noise, which gives an encoder something to search for.
    """
    output = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (size[1] // 4, size[0] // 4, 3)).repeat(4, 0).repeat(4, 1)
    with av.open(output, "w", format=form) as muxer:
        stream: Any = muxer.add_stream(codec, rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100) if times else Fraction(1, fps)
        if codec == "libx264":
            stream.options = {"preset": "ultrafast"}
        voice: Any = muxer.add_stream("aac", rate=sound, layout="mono") if sound else None
        for number in range(frames):
            picture = np.zeros((size[1], size[0], 3), np.uint8)
            picture[:, : (number + 1) * size[0] // frames] = 255
            if texture:
                drifting = np.roll(noise, (number, 3 * number), (0, 1))
                picture = (picture * (1 - texture) + drifting * texture).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = times[number] if times else number
            frame.time_base = stream.codec_context.time_base
            muxer.mux(stream.encode(frame))
        muxer.mux(stream.encode(None))
        if sound:
            tone = np.sin(np.arange(sound * frames // fps) / 20).astype(np.float32)[None]
            heard = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            heard.sample_rate = sound
            muxer.mux(voice.encode(heard))
            muxer.mux(voice.encode(None))
    return output.getvalue()


def cut_without_encoding(data: bytes, *, hidden: int, fps: int = 10) -> bytes:
    """The MP4 that begins `hidden` frames later: its packets are copied from the key frame on, an edit list hides the first."""
    output = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(output, "w", format="mp4") as muxer:
        stream = source.streams.video[0]
        copy = muxer.add_stream_from_template(stream)
        shift = round(hidden / fps / stream.time_base)
        for packet in source.demux(stream):
            if packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                muxer.mux(packet)
    return output.getvalue()


def sound_bytes(*, rate: int = 8000, seconds: float = 0.5, channels: int = 1, volume: float = 0.5) -> bytes:
    """A WAV of a tone of 16 bits."""
    output = io.BytesIO()
    tone = np.sin(np.arange(round(rate * seconds)) * 2 * np.pi * 440 / rate) * volume * 32767
    with wave.open(output, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(tone.astype("<i2"), channels).tobytes())
    return output.getvalue()


def encoded_sound(
    form: str, codec: str, *, rate: int = 16000, seconds: float = 1.0, sample_format: str = "s16"
) -> bytes:
    """The same tone in another container."""
    output = io.BytesIO()
    with av.open(output, "w", format=form) as muxer:
        stream: Any = muxer.add_stream(codec, rate=rate, layout="mono")
        stream.codec_context.format = sample_format
        with av.open(io.BytesIO(sound_bytes(rate=rate, seconds=seconds))) as source:
            for frame in source.decode(audio=0):
                muxer.mux(stream.encode(frame))
        muxer.mux(stream.encode(None))
    return output.getvalue()


def float_sound(samples: Any, *, rate: int = 8000) -> bytes:
    """A WAV of 32-bit floats, which may hold anything."""
    body = np.asarray(samples, "<f4").tobytes()
    header = b"WAVEfmt " + (16).to_bytes(4, "little") + (3).to_bytes(2, "little") + (1).to_bytes(2, "little")
    header += rate.to_bytes(4, "little") + (rate * 4).to_bytes(4, "little") + (4).to_bytes(2, "little")
    header += (32).to_bytes(2, "little") + b"data" + len(body).to_bytes(4, "little")
    return b"RIFF" + (len(header) + len(body)).to_bytes(4, "little") + header + body


def turned(data: bytes, quarter_turns: int) -> bytes:
    """An MP4 with the rotation that a phone writes, in quarter turns clockwise: the matrix of its track header."""
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter_turns % 4]
    matrix = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    at = data.index(b"tkhd") + 4 + 40  # version, times, ids and volumes before it
    body = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    return data[:at] + body + data[at + len(body) :]


def brightness(data: bytes) -> list[float]:
    """How much of each picture is white: says which frames of `clip_bytes` these are, and which way up."""
    with av.open(io.BytesIO(data)) as opened:
        return [float(frame.to_ndarray(format="gray").mean()) / 255 for frame in opened.decode(video=0)]
