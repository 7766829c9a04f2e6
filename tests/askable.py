"""Coloured shapes that are asked about: questions, hypotheses, statements about two pictures, as real datasets on disk."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from shards.manifest import merge
from shards.reader import Dataset, open_dataset
from shards.records import Annotation, Answer, Caption, Entailment, Media, Origin, Question, Record, Statement
from shards.stores import open_storage
from shards.writer import ShardWriter

COLOURS = ("red", "green", "blue", "white")
SHAPES = ("square", "disc")
SIZES: dict[str, Any] = {
    "kind": "vicha",
    "image_size": 16,
    "patch_size": 8,
    "vision": {"width": 32, "depth": 2, "heads": 2},
    "text": {
        "width": 32,
        "layers": 3,
        "fusion_layer": 1,
        "heads": 2,
        "mlp_width": 64,
        "max_positions": 32,
        "dropout": 0.0,
    },
    "projection": 16,
    "initialisation": "xavier",
    "concepts": None,
}
PRETRAINING: dict[str, Any] = {
    "contrast": {"queue_size": 16},
    "hierarchy": {"layers": 1},
    "masked_image": {"mode": "uni_cross_modal", "decoder_width": 32, "decoder_layers": 1, "decoder_heads": 2},
}


def picture(colour: str, shape: str) -> bytes:
    image = Image.new("RGB", (16, 16), "black")
    draw = ImageDraw.Draw(image)
    (draw.rectangle if shape == "square" else draw.ellipse)((2, 2, 13, 13), fill=colour)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=95, subsampling=0)
    return data.getvalue()


def scenes() -> Iterator[tuple[str, str]]:
    return itertools.product(COLOURS, SHAPES)


def captions() -> Iterator[tuple[list[tuple[str, str]], list[Annotation]]]:
    for colour, shape in scenes():
        yield [(colour, shape)], [Caption(text=f"a {colour} {shape}")]


def questions(*, told: bool = True) -> Iterator[tuple[list[tuple[str, str]], list[Annotation]]]:
    for number, (colour, shape) in enumerate(scenes()):
        asked = {"what colour is it": (colour, "gray"), "what shape is it": (shape, "thing")}
        yield (
            [(colour, shape)],
            [
                Question(
                    id=str(10 * number + place),
                    question=question,
                    answers=(Answer(text=right, weight=0.9), Answer(text=other, weight=0.1)) if told else (),
                )
                for place, (question, (right, other)) in enumerate(asked.items())
            ],
        )


def hypotheses(*, told: bool = True) -> Iterator[tuple[list[tuple[str, str]], list[Annotation]]]:
    for colour, shape in scenes():
        other = COLOURS[(COLOURS.index(colour) + 1) % len(COLOURS)]
        yield (
            [(colour, shape)],
            [
                Entailment(hypothesis=f"it is {colour}", label="entailment" if told else None),
                Entailment(hypothesis=f"it is {other}", label="contradiction" if told else None),
                Entailment(hypothesis="it belongs to somebody", label="neutral" if told else None),
            ],
        )


def statements(*, told: bool = True) -> Iterator[tuple[list[tuple[str, str]], list[Annotation]]]:
    for left, right in itertools.product(COLOURS, COLOURS):
        pictures = [(left, "square"), (right, "disc")]
        yield (
            pictures,
            [Statement(id=f"{left}-{right}", text="both have the same colour", label=left == right if told else None)],
        )


@pytest.fixture
def annotated(tmp_path: Path) -> Callable[..., Dataset]:
    """Write records of one or two drawn pictures each."""

    def write(name: str, rows: Iterable[tuple[Sequence[tuple[str, str]], list[Annotation]]]) -> Dataset:
        storage = open_storage(tmp_path / name)
        keywords = {"dataset": name, "split": "train", "unit": "unit0", "unit_index": 0, "config_digest": "c0ffee"}
        with ShardWriter(storage, **keywords) as writer:  # type: ignore[arg-type]
            records = annotated = 0
            for number, (pictures, annotations) in enumerate(rows):
                members = ["jpg"] if len(pictures) == 1 else [f"{place}.jpg" for place in range(len(pictures))]
                writer.add(
                    Record(
                        key=f"{name}-{number:03d}",
                        origin=Origin(dataset=name, split="train", id=str(number)),
                        media=tuple(Media(member=each, kind="image", width=16, height=16) for each in members),
                        annotations=tuple(annotations),
                        payload={each: picture(*shown) for each, shown in zip(members, pictures, strict=True)},
                    )
                )
                records, annotated = records + 1, annotated + len(annotations)
            writer.commit(raw_items=records, raw_annotations=annotated)
        merge(storage, name=name, split="train", config={}, config_digest="c0ffee", expected_units=["unit0"])
        return open_dataset(tmp_path / name)

    return write
