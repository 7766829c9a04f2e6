"""Tiny datasets of every modality, made in code."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from shards.manifest import merge
from shards.reader import Dataset, open_dataset
from shards.records import (
    Annotation,
    Answer,
    Caption,
    Detection,
    Entailment,
    Grounding,
    Label,
    Media,
    Origin,
    Question,
    Record,
    Reject,
    Statement,
    Text,
)
from shards.regions import regions_bytes
from shards.stores import open_storage
from shards.writer import ShardWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How the records of one modality look: their media, and what is said about the n-th of them."""

    media: tuple[Media, ...]
    payload: dict[str, bytes]
    annotations: Callable[[int], tuple[Annotation, ...]]


def picture(width: int = 160, height: int = 120, *, seed: int = 0, noise: bool = False) -> bytes:
    """A JPEG; noise makes it as large as JPEGs get."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    size = (height, width, 3) if noise else (height // 20, width // 20, 3)
    image = Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).resize((width, height))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


def clip(
    *, seconds: float = 1.0, codec: str = "libx264", container: str = "mp4", width: int = 96, height: int = 64
) -> bytes:
    """A clip of a square that wanders, without sound."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(round(10 * seconds)):
            pixels = np.full((height, width, 3), 40, np.uint8)
            pixels[8:40, 2 * number % 48 : 2 * number % 48 + 32] = 220
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def sound(*, seconds: float = 0.5, rate: int = 8_000) -> bytes:
    """A WAV of one rising tone."""
    import wave

    times = np.arange(round(seconds * rate)) / rate
    samples = (20_000 * np.sin(2 * np.pi * (300 + 200 * times) * times)).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def regions() -> bytes:
    rng = np.random.default_rng(1)
    corners = np.sort(rng.random((5, 2, 2)) * 300, axis=1).reshape(5, 4).astype(np.float32)
    return regions_bytes(
        features=rng.random((5, 8)).astype(np.float32), classes=rng.random((5, 3)).astype(np.float32), boxes=corners
    )


def kinds() -> dict[str, Kind]:
    """One kind for every modality and type of annotation that a page shows in its own way."""
    photo = Media(member="jpg", kind="image", width=160, height=120)
    one = {"jpg": picture()}
    return {
        "captions": Kind(media=(photo,), payload=one, annotations=lambda n: (Caption(text=f"Caption number {n}."),)),
        "questions": Kind(
            media=(photo,),
            payload=one,
            annotations=lambda n: (
                Question(
                    question=f"Which one is {n}?",
                    answers=(Answer(text="this", weight=0.7), Answer(text="that", weight=0.3)),
                ),
            ),
        ),
        "objects": Kind(
            media=(photo,),
            payload=one,
            annotations=lambda n: (
                Detection(box=(10, 10, 60, 50), label="dog"),
                Detection(box=(70, 20, 150, 110), label=f"cat {n}"),
            ),
        ),
        "expressions": Kind(
            media=(photo,),
            payload=one,
            annotations=lambda n: (
                Grounding(box=(10, 10, 60, 50), text=f"the dog, {n}"),
                Grounding(box=(10, 10, 60, 50), text="left one"),
                Grounding(box=(70, 20, 150, 110), text="right one"),
            ),
        ),
        "pairs": Kind(
            media=(replace(photo, member="0.jpg"), replace(photo, member="1.jpg")),
            payload={"0.jpg": picture(seed=1), "1.jpg": picture(seed=2)},
            annotations=lambda n: (Statement(text=f"Both show {n} dogs.", label=n % 2 == 0),),
        ),
        "hypotheses": Kind(
            media=(photo,),
            payload=one,
            annotations=lambda n: (Entailment(premise="It rains.", hypothesis=f"It is wet, {n}.", label="neutral"),),
        ),
        "clips": Kind(
            media=(Media(member="mp4", kind="video", width=96, height=64, frames=10, fps=10.0, duration_s=1.0),),
            payload={"mp4": clip()},
            annotations=lambda n: (Caption(text=f"Clip number {n}."),),
        ),
        "sounds": Kind(
            media=(Media(member="wav", kind="audio", duration_s=0.5, sample_rate=8_000, channels=1),),
            payload={"wav": sound()},
            annotations=lambda n: (Label(name="tone", index=n),),
        ),
        "regions": Kind(
            media=(Media(member="npz", kind="regions"),),
            payload={"npz": regions()},
            annotations=lambda n: (Caption(text=f"Regions number {n}."),),
        ),
        "texts": Kind(
            media=(), payload={}, annotations=lambda n: (Text(source=f"A long text, {n}.", target="Short."),)
        ),
    }


def write_kind(folder: Path, kind: Kind, *, records: int = 3, rejects: Sequence[Reject] = ()) -> Dataset:
    """Write a dataset of one kind in one shard, named like its folder; what the rejects lost joins its ledger."""
    storage, name = open_storage(folder), folder.name
    annotated = [kind.annotations(number) for number in range(records)]
    with ShardWriter(storage, dataset=name, split="test", unit="u0", unit_index=0, config_digest="c0") as writer:
        for number, annotations in enumerate(annotated):
            origin = Origin(dataset=name, split="test", id=str(number))
            key = f"{name}-test-{number:03d}"
            writer.add(Record(key=key, origin=origin, media=kind.media, annotations=annotations, payload=kind.payload))
        for reject in rejects:
            writer.reject(reject)
        items = [reject for reject in rejects if reject.level == "item"]
        lost = len(rejects) - len(items) + sum(reject.annotations for reject in items)
        writer.commit(raw_items=records + len(items), raw_annotations=sum(map(len, annotated)) + lost)
    merge(storage, name=name, split="test", config={}, config_digest="c0", expected_units=["u0"])
    return open_dataset(folder)
