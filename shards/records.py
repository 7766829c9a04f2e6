"""What a record is: one media item with all its annotations from one dataset, and what became of the raw items that are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels of the stored picture
MediaKind = Literal["image", "video", "audio", "regions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a record comes from: enough to find the raw item again."""

    dataset: str
    split: str
    id: str  # the raw dataset's own id
    file: str | None = None  # raw file name, relative to the media root
    licence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """One stored media file of a record. `member` is its tar extension: `jpg`, `0.jpg`, `mp4`, `wav`, `npz`."""

    member: str
    kind: MediaKind
    width: int | None = None  # pixels as displayed, after the EXIF orientation
    height: int | None = None
    frames: int | None = None  # of a clip, counted to its end
    fps: float | None = None  # on average: a clip may vary it
    duration_s: float | None = None  # of the clip's pictures, or of the sound
    sample_rate: int | None = None  # of a sound, or of a clip's sound track; None: no sound
    channels: int | None = None  # of the same sound
    start_s: float | None = None  # the span of a longer clip or sound that the annotations are about; None: all of it
    end_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    type: ClassVar[str] = "caption"
    id: str | None = None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    type: ClassVar[str] = "question"
    id: str | None = None
    question: str
    answers: tuple[Answer, ...] = ()  # empty for a test split
    question_type: str | None = None  # as the dataset sorts its questions, e.g. VQA v2's "what is the"
    answer_type: str | None = None  # e.g. VQA v2's "yes/no", "number", "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounding:
    type: ClassVar[str] = "grounding"
    id: str | None = None
    text: str
    box: Box


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    type: ClassVar[str] = "detection"
    id: str | None = None
    box: Box
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entailment:
    type: ClassVar[str] = "entailment"
    id: str | None = None
    hypothesis: str
    premise: str | None = None
    label: str | None = None  # None for a test split


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A sentence about two pictures, true or false."""

    type: ClassVar[str] = "statement"
    id: str | None = None
    text: str
    label: bool | None = None  # None for a test split


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    type: ClassVar[str] = "label"
    id: str | None = None
    name: str
    index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    type: ClassVar[str] = "text"
    id: str | None = None
    source: str
    target: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCode:
    type: ClassVar[str] = "image_code"
    id: str | None = None
    codes: tuple[int, ...]
    text: str | None = None


Annotation = Caption | Question | Grounding | Detection | Entailment | Statement | Label | Text | ImageCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One media item with all its annotations from one dataset; `payload` maps each media member to its bytes."""

    key: str  # [A-Za-z0-9_-]+, unique in the dataset, the same on every rebuild
    origin: Origin
    media: tuple[Media, ...]
    annotations: tuple[Annotation, ...]
    payload: Mapping[str, bytes] = field(default_factory=dict, repr=False, metadata={"stored": False})


RejectReason = Literal[
    "missing_media",
    "outside_media",  # a path or a link that leads out of the media folder
    "not_media",  # the bytes are no picture, clip or sound, whatever the file's name says
    "truncated_media",
    "zero_size",
    "decompression_bomb",
    "no_annotations",
    "empty_text",
    "broken_utf8",
    "box_outside",
    "empty_box",  # no width or no height
    "size_mismatch",  # the stored picture is not of the size that its boxes were drawn on
    "not_finite",
    "span_outside",  # the seconds that the annotations are about are not in the clip or sound
    "duplicate_id",
    "duplicate",  # the same or nearly the same picture as another item's
    "missing_field",
    "remote_media",  # a URL: not fetched here
    "filtered",  # a transform said no
    "unsupported",
]


class MediaProblem(Exception):
    """A raw media file, or an annotation, that cannot become part of a record, and why."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: RejectReason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A raw item, or one annotation of it, that did not become part of a record."""

    id: str  # the raw id of the item, or of the annotation
    reason: RejectReason
    detail: str
    level: Literal["item", "annotation"] = "item"
    # Of an item: how many of its annotations were lost with it, beside those that are rejected by name.
    annotations: int = 0
    item: str | None = None  # of an annotation: the raw id of its item
