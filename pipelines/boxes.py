"""Boxes of raw annotations, checked against the picture that is really stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.source import SourceConfig
from shards.media import MediaProblem
from shards.records import Annotation, Box, Detection, Grounding, Reject

_ROUNDING = 1.0  # pixels; annotation tools round outwards, so a box may end one pixel behind the border
_DECIMALS = 6  # of a pixel


class BoxedConfig(SourceConfig):
    """A source whose annotations have boxes."""

    clip_boxes: bool = False
    """Cut a box that sticks out of its picture at the border instead of rejecting it; one wholly outside stays a reject."""
    rescale_boxes: bool = False
    """Where a stored picture has another size than the annotations say, scale the boxes along instead of rejecting it."""

    def box_rule(self) -> BoxRule:
        """The two settings, as the reading of records takes them."""
        return BoxRule(clip=self.clip_boxes, rescale=self.rescale_boxes)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxRule:
    """What to do with boxes that do not fit their picture; the default is to refuse them."""

    clip: bool = False
    rescale: bool = False


def from_corner_and_size(x: Any, y: Any, width: Any, height: Any, *, where: str) -> Box:
    """`[x, y, width, height]`, as COCO and Visual Genome write boxes, to corners.

    Raises:
        MediaProblem: a value is no number or not finite, or the box has no area.
    """
    values = _numbers((x, y, width, height), where=where)
    # 299.99 + 177.42 is 477.40999999999997; nobody measured that.
    right, bottom = (round(values[axis] + values[axis + 2], _DECIMALS) for axis in (0, 1))
    return from_corners(values[0], values[1], right, bottom, where=where)


def from_corners(x0: Any, y0: Any, x1: Any, y1: Any, *, where: str) -> Box:
    """`[x0, y0, x1, y1]` as it is. Raises `MediaProblem` for a value that is no finite number, or a box without area."""
    box = _numbers((x0, y0, x1, y1), where=where)
    if box[2] <= box[0] or box[3] <= box[1]:
        raise MediaProblem("empty_box", f"{where}: the box {_shown(box)} has no area")
    return box


def fitted(
    annotations: tuple[Annotation, ...],
    *,
    drawn_on: tuple[int, int] | None,
    stored: tuple[int, int],
    rule: BoxRule,
    id: str,
) -> tuple[tuple[Annotation, ...], tuple[Reject, ...]]:
    """Bring boxes into the stored picture.

    Args:
        annotations: of one record; those without a box pass.
        drawn_on: width and height that the annotations say the picture has; None where they say nothing.
        stored: width and height of the stored picture.
        rule: whether to rescale and to clip.
        id: raw id of the item, for annotations without one of their own.

    Returns:
        The annotations with boxes inside the picture, and a reject for every other.

    Raises:
        MediaProblem: the picture has another size than its boxes were drawn on, and the rule does not rescale.
    """
    if not any(isinstance(annotation, (Grounding, Detection)) for annotation in annotations):
        return annotations, ()
    scale = (1.0, 1.0)
    if drawn_on is not None and drawn_on != stored:
        if not rule.rescale:
            raise MediaProblem(
                "size_mismatch",
                f"its boxes were drawn on {drawn_on[0]}x{drawn_on[1]} pixels, and the picture has {stored[0]}x{stored[1]}; "
                "give the original pictures, or scale the boxes with source.rescale_boxes=true",
            )
        scale = (stored[0] / drawn_on[0], stored[1] / drawn_on[1])
    kept: list[Annotation] = []
    rejects: list[Reject] = []
    for number, annotation in enumerate(annotations):
        if not isinstance(annotation, (Grounding, Detection)):
            kept.append(annotation)
            continue
        raw = tuple(value * scale[axis % 2] for axis, value in enumerate(annotation.box))
        box = _inside(raw, stored, clip=rule.clip)
        if box is None:
            detail = f"the box {_shown(raw)} is not inside the picture of {stored[0]}x{stored[1]} pixels"
            rejects.append(
                Reject(id=annotation.id or f"{id}#{number}", reason="box_outside", detail=detail, level="annotation")
            )
        else:
            kept.append(annotation if box == annotation.box else replace(annotation, box=box))
    return tuple(kept), tuple(rejects)


def _inside(box: Sequence[float], size: tuple[int, int], *, clip: bool) -> Box | None:
    width, height = size
    x0, y0, x1, y1 = box
    over = max(-x0, -y0, x1 - width, y1 - height)
    if over > _ROUNDING and not clip:
        return None
    inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    return inside if inside[0] < inside[2] and inside[1] < inside[3] else None


def _numbers(values: Sequence[Any], *, where: str) -> Box:
    numbers: list[float] = []
    for value in values:
        try:
            if isinstance(value, bool):
                raise ValueError
            number = float(value)
        except (TypeError, ValueError):
            raise MediaProblem("missing_field", f"{where}: {value!r} in its box is no number") from None
        if not math.isfinite(number):
            raise MediaProblem("not_finite", f"{where}: {value!r} in its box is not finite")
        numbers.append(number)
    x0, y0, x1, y1 = numbers
    return x0, y0, x1, y1


def _shown(box: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "]"
