"""What the columns of anybody's table mean, and how the cells of one row become an annotation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, Literal

from pydantic import model_validator

from pipelines.boxes import from_corner_and_size, from_corners
from pipelines.drafts import usable_text
from pipelines.questions import weighted
from pipelines.raw_text import printable
from shards.config import Config as BaseConfig
from shards.media import MediaProblem
from shards.records import (
    Annotation,
    Answer,
    Box,
    Caption,
    Detection,
    Entailment,
    Grounding,
    Label,
    MediaKind,
    Question,
    Statement,
    Text,
)

BoxForm = Literal["x0y0x1y1", "xywh"]
Cells = Mapping[str, Any]  # of one row, by the names of `Columns`

_MEDIA = ("image", "image2", "video", "audio")
_KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # columns that a kind of annotation needs, and may have
    "caption": (("caption",), ()),
    "question": (("question",), ("answer", "weight")),
    "grounding": (("text", "box"), ()),
    "detection": (("box", "label"), ()),
    "entailment": (("hypothesis",), ("premise", "label")),
    "statement": (("statement",), ("label",)),
    "text": (("source",), ("target",)),
    "label": (("label",), ()),
}
_TRUE, _FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})


class Columns(BaseConfig):
    """Names of columns. Which are given decides what the annotations are; the media come from at most one kind of column."""

    image: str | None = None
    """Pictures: a path, bytes (also as `{bytes, path}`) or base64; or a list of two of them."""
    image2: str | None = None
    """The second of two pictures."""
    video: str | None = None
    """Clips: a path, bytes or base64."""
    audio: str | None = None
    """Sounds: a path, bytes or base64."""
    id: str | None = None
    """The media item's id; unset: its path, or the row's number where media lie inside the table."""
    annotation_id: str | None = None
    """The annotation's own id, such as a question's."""
    caption: str | tuple[str, ...] | None = None
    """One caption, or a list of them; or several columns."""
    question: str | None = None
    """A question about the media item."""
    answer: str | None = None
    """One answer, a list, `a|b`, or answers with weights as a JSON object; repeated ones weigh their share."""
    weight: str | None = None
    """Weights of the answers, as many."""
    text: str | None = None
    """What a box shows."""
    box: str | tuple[str, str, str, str] | None = None
    """One column of four numbers, or four columns."""
    label: str | None = None
    """The name of a box or of the whole item, a verdict on a hypothesis, or true or false for a statement."""
    hypothesis: str | None = None
    """What follows from the picture or not, as `label` says."""
    premise: str | None = None
    """The text that the hypothesis was written for."""
    statement: str | None = None
    """A statement about the pictures, true or false, as `label` says."""
    source: str | None = None
    """A text without media."""
    target: str | None = None
    """What is to be made of that text: a label, a summary."""

    @model_validator(mode="after")
    def _are_one_kind_of_annotation(self) -> Columns:
        given = self._given(besides=(*_MEDIA, "id", "annotation_id"))
        if not any(set(needs) <= given <= {*needs, *may} for needs, may in _KINDS.values()):
            ways = ", ".join(
                " + ".join(needs) + "".join(f" [+ {name}]" for name in may) for needs, may in _KINDS.values()
            )
            what = f"{' + '.join(sorted(given))} is no kind of annotation" if given else "no annotation is named"
            raise ValueError(f"{what}; give the columns of one of: {ways}")
        media = self._given(among=_MEDIA)
        if len(media - {"image2"}) > 1 or media == {"image2"}:
            raise ValueError(
                f"{' + '.join(sorted(media))} is no media item; give image, image + image2, video, audio or none"
            )
        if "image2" in media and self.caption is None and self.statement is None and self.label is None:
            raise ValueError("image + image2 takes a statement, a caption or a label")
        if self.box is not None and "image" not in media:
            raise ValueError("a box lies in a picture; give columns.image")
        return self

    @property
    def annotation(self) -> str:
        """The type of the annotations."""
        given = self._given(besides=(*_MEDIA, "id", "annotation_id"))
        return next(kind for kind, (needs, may) in _KINDS.items() if set(needs) <= given <= {*needs, *may})

    @property
    def media(self) -> tuple[tuple[str, MediaKind], ...]:
        """(column, what lies in it) of the media, in their order."""
        kinds: dict[str, MediaKind] = {"image": "image", "image2": "image", "video": "video", "audio": "audio"}
        return tuple((getattr(self, name), kinds[name]) for name in _MEDIA if getattr(self, name) is not None)

    def columns(self) -> Iterator[tuple[str, str]]:
        """(key, column) of all that are given."""
        for key, value in self:
            for column in value if isinstance(value, tuple) else (value,):
                if column is not None:
                    yield key, column

    def cells(self, values: Mapping[str, Any]) -> Cells:
        """The annotation's cells of a row, with plain JSON values."""
        return {
            key: [_plain(values.get(column)) for column in columns]
            if isinstance(columns, tuple)
            else _plain(values.get(columns))
            for key, columns in self
            if columns is not None and key not in (*_MEDIA, "id")
        }

    def _given(self, *, among: Sequence[str] | None = None, besides: Sequence[str] = ()) -> set[str]:
        return {
            key for key, value in self if value is not None and key not in besides and (among is None or key in among)
        }


def annotations_of(
    cells: Cells, kind: str, *, boxes: BoxForm, where: str
) -> Iterator[tuple[str, Annotation | MediaProblem]]:
    """The annotations of one row: each with its place in the table, and what was wrong where it cannot be used.

    Args:
        cells: as `Columns.cells` gives them.
        kind: `Columns.annotation`.
        boxes: how the four numbers of a box are meant.
        where: the row's place, for messages.
    """
    id = as_text(cells.get("annotation_id"))
    parts = _listed(cells["caption"]) if kind == "caption" else (None,)
    for number, part in enumerate(parts):
        place = where if len(parts) == 1 else f"{where} caption {number}"
        own = id if id is None or len(parts) == 1 else f"{id}#{number}"
        try:
            if kind == "caption":
                yield place, Caption(id=own, text=usable_text(part, what="caption", where=place))
            else:
                yield place, _annotation(cells, kind, boxes=boxes, id=id, where=where)
        except MediaProblem as problem:
            yield own or place, problem


def _annotation(cells: Cells, kind: str, *, boxes: BoxForm, id: str | None, where: str) -> Annotation:
    """One annotation of any kind but captions. Raises `MediaProblem`."""

    def text(key: str) -> str:
        value = cells.get(key)
        value = str(value) if isinstance(value, int | float) else value
        return usable_text(value, what=key, where=where)

    def text_or_none(key: str) -> str | None:
        return None if as_text(cells.get(key)) is None else text(key)

    if kind == "question":
        answers = _answers(cells, where=where) if "answer" in cells else ()
        return Question(id=id, question=text("question"), answers=answers)
    if kind == "grounding":
        return Grounding(id=id, text=text("text"), box=_box(cells["box"], boxes, where=where))
    if kind == "detection":
        return Detection(id=id, label=text("label"), box=_box(cells["box"], boxes, where=where))
    if kind == "entailment":
        label = text("label") if "label" in cells else None
        return Entailment(id=id, hypothesis=text("hypothesis"), premise=text_or_none("premise"), label=label)
    if kind == "statement":
        return Statement(id=id, text=text("statement"), label=_truth(cells.get("label"), where=where))
    if kind == "text":
        return Text(id=id, source=text("source"), target=text("target") if "target" in cells else None)
    name = text("label")
    return Label(id=id, name=name, index=int(name) if name.isascii() and name.isdecimal() else None)


def as_text(value: Any) -> str | None:
    """A cell as a name: without white space around it, None where it is empty or no name at all."""
    text = "" if value is None or isinstance(value, bytes | Mapping | list | tuple) else str(value).strip()
    return printable(text) or None


def _answers(cells: Cells, *, where: str) -> tuple[Answer, ...]:
    """Answers with their weights, the heaviest first; without weights each distinct one weighs its share."""
    raw = cells["answer"]
    parts = _listed(raw, also="|")
    if isinstance(raw, str) and raw.lstrip().startswith("{"):
        parts = (_parsed(raw),)
    if len(parts) == 1 and isinstance(parts[0], Mapping) and "text" not in parts[0] and "answer" not in parts[0]:
        parts = tuple({"text": text, "weight": weight} for text, weight in parts[0].items())
    texts: list[str] = []
    own: list[Any] = []
    for number, part in enumerate(parts):
        fields = part if isinstance(part, Mapping) else {"text": part}
        value = fields.get("text", fields.get("answer"))
        value = str(value) if isinstance(value, int | float) else value
        texts.append(usable_text(value, what="answer", where=where if len(parts) == 1 else f"{where} answer {number}"))
        own.append(fields.get("weight"))
    given = _listed(cells["weight"], also="|") if as_text(cells.get("weight")) or cells.get("weight") else own
    if all(weight is None for weight in given):
        return weighted(texts)
    if len(given) != len(texts):
        raise MediaProblem("missing_field", f"{where} has {len(texts)} answers and {len(given)} weights")
    answers = [
        Answer(text=text, weight=_weight(weight, where=where)) for text, weight in zip(texts, given, strict=True)
    ]
    if len(set(texts)) != len(texts):
        raise MediaProblem("duplicate_id", f"{where} gives one answer two weights")
    return tuple(sorted(answers, key=lambda answer: -answer.weight))


def _weight(raw: Any, *, where: str) -> float:
    try:
        weight = float(raw)
    except (TypeError, ValueError):
        raise MediaProblem("missing_field", f"{where}: the weight {raw!r} of an answer is no number") from None
    if not isfinite(weight) or weight < 0:
        raise MediaProblem("not_finite", f"{where}: the weight {raw!r} of an answer is negative or not finite")
    return weight


def _box(raw: Any, form: BoxForm, *, where: str) -> Box:
    if isinstance(raw, str):
        raw = _parsed(raw) if raw.lstrip().startswith("[") else raw.replace(",", " ").replace(";", " ").split()
    if not isinstance(raw, list | tuple) or len(raw) != 4:
        raise MediaProblem("missing_field", f"{where} has no box of four numbers")
    return (from_corners if form == "x0y0x1y1" else from_corner_and_size)(*raw, where=where)


def _truth(raw: Any, *, where: str) -> bool | None:
    text = as_text(raw)
    if text is None:
        return None
    if text.lower() not in _TRUE | _FALSE:
        raise MediaProblem("unsupported", f"{where}: {text!r} as a statement's label is neither true nor false")
    return text.lower() in _TRUE


def _listed(value: Any, *, also: str | None = None) -> Sequence[Any]:
    """One value or the values of a list; a text cell may hold a list as JSON, or with `also` between its values."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _parsed(value)
    if isinstance(value, str) and also is not None:
        return [part.strip() for part in value.split(also)]
    return value if isinstance(value, list | tuple) and value else (None,) if value in ([], ()) else (value,)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return text  # words that happen to begin with a bracket


def _plain(value: Any) -> Any:
    """A cell as JSON values: what Parquet has beyond these (dates, decimals) is spelt out."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
