"""Pictures inside the page: small copies as data URIs, found again by their record's key."""

from __future__ import annotations

import base64
import io
import logging
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from jobs.report.markup import Markup, tag
from shards.reader import Dataset
from shards.records import (
    Annotation,
    Caption,
    Detection,
    Entailment,
    Grounding,
    ImageCode,
    Label,
    Question,
    Record,
    Statement,
)

logger = logging.getLogger(__name__)

LONGEST_SIDE = 256  # pixels of an embedded copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """A record as the page shows it: the copy of its picture (None: it has none) and its texts."""

    key: str
    uri: str | None
    texts: tuple[str, ...]

    def picture(self, alt: str | None = None) -> Markup:
        """The picture as an element, described for those who cannot see it."""
        if self.uri is None:
            return tag("span", "no picture", class_="no-picture", role="img", aria_label=alt or self.key)
        return tag("img", src=self.uri, alt=alt or (self.texts[0] if self.texts else self.key), loading="lazy")


class Locator:
    """Finds records by key over several datasets, and makes each copy once."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self._datasets = datasets
        self._exhibits: dict[str, Exhibit] = {}

    def exhibit(self, key: str) -> Exhibit:
        """Show a record; one that no dataset here holds is shown by its key alone."""
        if key not in self._exhibits:
            self._exhibits[key] = self._find(key)
        return self._exhibits[key]

    def record(self, key: str) -> Record | None:
        """Read a record with its media; None where no dataset here holds it."""
        for dataset in self._datasets:
            try:
                shard, row = dataset.locate(key)
            except KeyError:
                continue
            return dataset.record(shard, row)
        return None

    def _find(self, key: str) -> Exhibit:
        record = self.record(key)
        return Exhibit(key=key, uri=None, texts=()) if record is None else exhibit_record(record)


def exhibit_record(record: Record) -> Exhibit:
    """Copy a record's first picture and its texts."""
    member = next((media.member for media in record.media if media.kind == "image"), None)
    return Exhibit(
        key=record.key,
        uri=None if member is None else picture_uri(record.payload[member], where=record.key),
        texts=tuple(annotation_text(annotation) for annotation in record.annotations),
    )


def sample_rows(dataset: Dataset, count: int) -> list[tuple[int, int]]:
    """Rows spread evenly over a dataset: (shard, row), the same ones each time."""
    total = len(dataset)
    starts = [
        0,
        *accumulate(dataset.shard_sizes()),
    ]  # there may be ten thousand shards, most of them without a chosen row
    rows: list[tuple[int, int]] = []
    for number in range(min(count, total)):
        place = number * total // min(count, total)
        shard = bisect_right(starts, place) - 1
        rows.append((shard, place - starts[shard]))
    return rows


def picture_uri(data: bytes, *, where: str, longest: int = LONGEST_SIDE) -> str | None:
    """Shrink an encoded picture and write it as a data URI; None where it cannot be decoded."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            if max(picture.size) <= longest and picture.format == "JPEG" and picture.getexif().get(0x0112, 1) == 1:
                return _data_uri(data, "jpeg")
            picture.draft("RGB", (2 * longest, 2 * longest))
            upright = ImageOps.exif_transpose(picture).convert("RGB")
            upright.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        logger.warning("%s: its picture cannot be shown (%s)", where, error)
        return None
    buffer = io.BytesIO()
    upright.save(buffer, format="JPEG", quality=82, optimize=True)
    return _data_uri(buffer.getvalue(), "jpeg")


def annotation_text(annotation: Annotation) -> str:
    """Say an annotation in one line."""
    match annotation:
        case Caption() | Grounding() | Statement():
            return annotation.text
        case Question():
            answers = ", ".join(answer.text for answer in annotation.answers)
            return f"{annotation.question} {answers}".strip()
        case Entailment():
            return annotation.hypothesis + (f" ({annotation.label})" if annotation.label is not None else "")
        case Detection():
            return annotation.label
        case Label():
            return annotation.name
        case ImageCode():
            return annotation.text or f"{len(annotation.codes)} image codes"
    return annotation.source if annotation.target is None else f"{annotation.source} → {annotation.target}"


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
