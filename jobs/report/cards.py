"""One record as a card: its media as they look and sound, with everything that is said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.report.learned import Learned
from jobs.report.markup import Markup, join, tag
from jobs.report.overlays import Marked, clipped, colour_of, overlay, shown_size
from jobs.report.pictures import annotation_text, picture_uri
from jobs.report.players import Playable, playable_clip, playable_sound
from jobs.report.sayings import MOST_SAID, Fit, say_rest, saying
from jobs.report.wrong_captions import wrong_captions
from shards.records import Annotation, Box, Detection, Grounding, Media, MediaProblem, Record
from shards.regions import read_regions

THUMB, LARGE, SMALLEST = 256, 640, 96  # pixels of the longer side of an embedded copy
BANNER = 2.5  # width by height from which a picture gets the width of its card
MOST_CONCEPTS = 8
_LONGEST_CONCEPT = 60  # letters
MOST_REGIONS = 30
MOST_EXPRESSIONS = 12  # boxes with expressions, drawn and written out


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """The media part of a card: what is drawn, and a line about it."""

    drawing: Markup
    note: str = ""
    large: bool = True  # above the texts in the card's full width, or small beside them


def record_card(record: Record, *, learned: Learned, allowance: int) -> Markup:
    """Show a record within about so many characters of the page.

    Args:
        record: with its payload.
        learned: what the columns beside the dataset say about it.
        allowance: characters; media that would take more are shown smaller, shorter, or as a still.
    """
    figure = _figure(record, allowance)
    facts = " · ".join(
        [*(fact for media in record.media if (fact := media_fact(media))), *([figure.note] * bool(figure.note))]
    )
    return tag(
        "article",
        figure.drawing,
        tag("div", *_texts(record, learned), class_="texts"),
        _concept_bars(learned.concepts),
        wrong_captions(learned, record.annotations),
        tag("p", tag("code", clipped(record.key, 80)), f" · {facts}" if facts else None, class_="facts"),
        class_="card wide" if figure.large else "card" if record.media else "card text",
    )


def media_fact(media: Media) -> str:
    """Size, length and rate of a media item in one line."""
    facts = []
    if media.width is not None and media.height is not None:
        facts.append(f"{media.width} × {media.height}")
    if media.duration_s is not None:
        facts.append(f"{media.duration_s:.1f} s")
    if media.kind == "video" and media.fps is not None:
        facts.append(f"{media.fps:.4g} frames/s")
    if media.sample_rate is not None:
        channels = {1: "mono", 2: "stereo"}.get(media.channels or 0, "")
        facts.append(f"{media.sample_rate / 1000:.4g} kHz {channels}".strip())
    if media.start_s is not None or media.end_s is not None:
        end = "its end" if media.end_s is None else f"{media.end_s:.1f} s"
        facts.append(f"annotated from {media.start_s or 0:.1f} s to {end}")
    return ", ".join(facts)


def marked_boxes(annotations: Sequence[Annotation]) -> tuple[Marked, ...]:
    """The boxes of a record, large ones first so that small ones stay visible: detections in the colour of their label,
    groundings in a colour and with a number of their own, the expressions of one box sharing it. A box whose expression is not
    written out is not drawn.
    """
    marked: list[Marked] = []
    labels = list(dict.fromkeys(each.label for each in annotations if isinstance(each, Detection)))
    for each in annotations:
        if isinstance(each, Detection):
            marked.append(Marked(box=each.box, label=each.label, colour=colour_of(labels.index(each.label))))
    for number, box in enumerate(list(_grounded(annotations))[:MOST_EXPRESSIONS]):
        marked.append(Marked(box=box, label=str(number + 1), colour=colour_of(number)))
    return tuple(sorted(marked, key=lambda one: (one.box[0] - one.box[2]) * (one.box[3] - one.box[1])))


def _figure(record: Record, allowance: int) -> Figure:
    pictures = [media for media in record.media if media.kind == "image"]
    if len(pictures) > 1:
        return _pair(record, pictures, allowance)
    boxes = marked_boxes(record.annotations)
    if pictures:
        return _picture(record, pictures[0], boxes, allowance)
    if not record.media:
        return Figure(drawing=Markup(""), large=False)
    media = record.media[0]
    data = record.payload[media.member]
    if media.kind == "video":
        return _clip(playable_clip(data, media, allowance=allowance, where=record.key))
    if media.kind == "audio":
        return _sound(playable_sound(data, media, allowance=allowance, where=record.key), media)
    return _regions(data)


def _picture(record: Record, media: Media, boxes: Sequence[Marked], allowance: int) -> Figure:
    banner = bool(media.width and media.height and media.width >= BANNER * media.height)
    uri = _fitting(record, media, longest=LARGE if boxes or banner else THUMB, allowance=allowance)
    if uri is None:
        return Figure(drawing=_no_picture(record), note="the picture cannot be shown", large=False)
    shown = tag("img", src=uri, alt=_alt(record), loading="lazy")
    if not boxes or not media.width or not media.height:
        return Figure(drawing=shown, large=banner)
    return Figure(
        drawing=_boxed(join([shown, overlay(boxes, width=media.width, height=media.height)]), media.width, media.height)
    )


def _boxed(inside: Markup, width: float, height: float) -> Markup:
    shown = shown_size(width, height)[0]
    return tag("div", inside, class_="boxed", style=f"max-width:{shown:.0f}px;aspect-ratio:{width:.0f}/{height:.0f}")


def _pair(record: Record, pictures: Sequence[Media], allowance: int) -> Figure:
    """Pictures side by side at one height: each is as wide as its aspect asks for."""
    shown = []
    for number, media in enumerate(pictures, start=1):
        uri = _fitting(record, media, longest=THUMB, allowance=allowance // len(pictures))
        alt = f"Picture {number} of {len(pictures)}: {_alt(record)}"
        inside = _no_picture(record) if uri is None else tag("img", src=uri, alt=alt, loading="lazy")
        aspect = media.width / media.height if media.width and media.height else 1.0
        shown.append(tag("div", inside, style=f"flex:{aspect:.3f}"))
    return Figure(drawing=tag("div", *shown, class_="side-by-side"))


def _clip(clip: Playable) -> Figure:
    still = (
        tag("img", src=clip.still, alt="Frames of the clip in a row", class_="still", loading="lazy")
        if clip.still
        else None
    )
    player = tag("video", src=clip.source, controls=True, preload="metadata", playsinline=True) if clip.source else None
    nothing = tag("span", "no clip", class_="no-picture") if still is None and player is None else None
    return Figure(drawing=tag("div", player, still, nothing, class_="player"), note=clip.note)


def _sound(sound: Playable, media: Media) -> Figure:
    player = tag("audio", src=sound.source, controls=True, preload="metadata") if sound.source else None
    if sound.still is None:
        return Figure(
            drawing=tag("div", player, tag("span", "no sound", class_="no-picture"), class_="player"), note=sound.note
        )
    top = "" if media.sample_rate is None else f", 0 to {media.sample_rate / 2000:.4g} kHz"
    start = media.start_s or 0.0
    still = tag("img", src=sound.still, alt="Log-mel spectrogram of the sound", class_="still", loading="lazy")
    axes = tag("figcaption", tag("span", f"mel{top}"), tag("span", f"{start:.3g} to {start + sound.seconds:.3g} s"))
    return Figure(
        drawing=tag("div", player, tag("figure", still, axes, class_="spectrogram"), class_="player"), note=sound.note
    )


def _regions(data: bytes) -> Figure:
    """Region features have no picture here: their boxes are drawn on an empty ground as large as they reach."""
    try:
        regions = read_regions(data)
    except MediaProblem as problem:
        return Figure(drawing=tag("span", "no regions", class_="no-picture"), note=problem.detail)
    corners = regions["boxes"][:, :4].astype(float)
    sure = regions["classes"].max(axis=1).argsort(kind="stable")[::-1][:MOST_REGIONS]
    width, height = (max(1.0, float(corners[:, side].max())) for side in (2, 3))
    boxes = [
        Marked(
            box=(left, top, right, bottom), label=str(int(regions["classes"][row].argmax())), colour=colour_of(place)
        )
        for place, row in enumerate(sure.tolist())
        for left, top, right, bottom in [corners[row].tolist()]
    ]
    boxes.sort(key=lambda one: (one.box[0] - one.box[2]) * (one.box[3] - one.box[1]))
    count, depth = regions["features"].shape
    surest = f"the surest {len(boxes)} with their class's number"
    note = f"{count} regions of {depth:,} numbers, {regions['classes'].shape[1]:,} classes; {surest}"
    return Figure(drawing=_boxed(overlay(boxes, width=width, height=height), width, height), note=note)


def _fitting(record: Record, media: Media, *, longest: int, allowance: int) -> str | None:
    """A copy of a picture that fits the allowance, the largest of a few sizes; the smallest one in any case."""
    data = record.payload[media.member]
    uri = picture_uri(data, where=record.key, longest=longest)
    while uri is not None and len(uri) > allowance and longest > SMALLEST:
        longest = max(SMALLEST, longest // 2)
        uri = picture_uri(data, where=record.key, longest=longest)
    return uri


def _texts(record: Record, learned: Learned) -> list[Markup]:
    grounded = _grounded(record.annotations)
    if grounded:
        lines = [
            tag("p", _chip(str(number + 1), colour_of(number)), " ", clipped(" / ".join(texts), 400))
            for number, texts in enumerate(grounded.values())
        ]
    elif any(isinstance(each, Detection) for each in record.annotations):
        return [_detected(record.annotations)]
    else:
        said = record.annotations[:MOST_SAID]
        lines = [
            saying(each, before=before, fit=_fit(learned, number))
            for number, (each, before) in enumerate(zip(said, (None, *said), strict=False))
        ]
        return [*lines, *say_rest(len(record.annotations) - len(lines), record.annotations)]
    return [*lines[:MOST_EXPRESSIONS], *say_rest(len(lines) - MOST_EXPRESSIONS, record.annotations)]


def _fit(learned: Learned, annotation: int) -> Fit:
    """How well an annotation fits its picture, by what columns say; nothing where they are about other annotations."""
    return Fit(
        similarity=learned.similarities[annotation] if annotation < len(learned.similarities) else None,
        is_left_out=annotation < len(learned.kept) and not learned.kept[annotation],
    )


def _detected(annotations: Sequence[Annotation]) -> Markup:
    counts: dict[str, int] = {}
    for each in annotations:
        if isinstance(each, Detection):
            counts[each.label] = counts.get(each.label, 0) + 1
    chips: list[Markup] = []
    for number, (label, count) in enumerate(counts.items()):
        chips += [_chip(clipped(label, 40) + (f" × {count}" if count > 1 else ""), colour_of(number)), Markup(" ")]
    return tag("p", *chips[: 2 * 4 * MOST_SAID])


def _chip(text: str, colour: str) -> Markup:
    return tag("span", text, class_="chip", style=f"background:{colour}")


def _grounded(annotations: Sequence[Annotation]) -> dict[Box, list[str]]:
    """The expressions by their box, in the order of their first appearance."""
    found: dict[Box, list[str]] = {}
    for each in annotations:
        if isinstance(each, Grounding):
            found.setdefault(each.box, []).append(each.text)
    return found


def _concept_bars(concepts: Mapping[str, float]) -> Markup | None:
    top = list(concepts.items())[:MOST_CONCEPTS]
    if not top:
        return None
    if not any(concepts.values()):  # concepts that came with the raw data have no scores: their column holds zeros
        return tag(
            "ul",
            *(tag("li", clipped(phrase, _LONGEST_CONCEPT)) for phrase, _ in top),
            class_="concepts",
            aria_label="Concepts",
        )
    best, low = top[0][1], min(concepts.values())
    bars = [
        tag(
            "li",
            tag("span", clipped(phrase, _LONGEST_CONCEPT)),
            tag("span", f"{score:.2f}", class_="score"),
            # The bar starts a little below the weakest concept shown, because cosines of one picture lie close together.
            style=f"--share:{100 * (0.08 + 0.92 * (score - low) / (best - low) if best > low else 1.0):.0f}%",
        )
        for phrase, score in top
    ]
    return tag("ul", *bars, class_="concepts", aria_label="Concepts with scores")


def _alt(record: Record) -> str:
    return clipped(annotation_text(record.annotations[0]), 200) if record.annotations else record.key


def _no_picture(record: Record) -> Markup:
    return tag("span", "no picture", class_="no-picture", role="img", aria_label=record.key)
