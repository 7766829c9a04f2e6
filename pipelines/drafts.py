"""Raw items in the making: what a source reads out of its annotation files, and their one way to records and named rejects.

A source turns its files into `Draft`s; from there on there is one path for all of them, so that a broken picture, an empty text
or a box outside is the same named reject whatever dataset it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pipelines.boxes import BoxRule, fitted
from pipelines.media_folder import MediaFolder, NamedFiles
from pipelines.raw_text import is_broken, printable
from pipelines.source import RawItem, SourceConfig, Target, Unit
from shards.codec import annotation_from_plain
from shards.media import MediaProblem, probe_media
from shards.plain import to_plain
from shards.records import Annotation, Caption, Media, MediaKind, Origin, Record, Reject, RejectReason

Problem = tuple[RejectReason, str]  # why an item or an annotation cannot become (part of) a record
PlainPlace = Mapping[str, Any]  # a `Place` as JSON values, as a unit carries it
MediaCheck = Callable[[Iterable["Draft"]], Iterator["Draft"]]  # passes drafts through; raises `InputError`


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one media file of an item is to be found."""

    kind: MediaKind = "image"
    file: str | None = None  # relative to the media folder
    at: Mapping[str, Any] | None = (
        None  # JSON values that the source's own `load` understands, for media in no file of their own
    )
    span: tuple[float, float] | None = None  # seconds of the file that the annotations are about; None: all of it

    def plain(self) -> PlainPlace:
        plain: dict[str, Any] = {}
        if self.kind != "image":
            plain["kind"] = self.kind
        if self.file is not None:
            plain["file"] = printable(self.file)
        if self.at is not None:
            plain["at"] = self.at
        if self.span is not None:
            plain["span"] = list(self.span)
        return plain


@dataclass(slots=True, kw_only=True)
class Draft:
    """One raw item while its annotation file is being read; `item()` freezes it into what a unit carries."""

    id: str  # the raw dataset's own
    stem: str  # of the record's key
    media: list[Place] = field(default_factory=list)  # none for text
    annotations: list[Annotation] = field(default_factory=list)
    refused: list[tuple[str, RejectReason, str]] = field(default_factory=list)  # annotations: (id, reason, detail)
    problem: Problem | None = None  # makes the whole item a reject
    licence: str | None = None
    split: str | None = None  # where items of one run come from several splits
    size: tuple[int, int] | None = (
        None  # width and height of the picture that boxes were drawn on, where the files say so
    )

    def refuse(self, id: str, reason: RejectReason, detail: str) -> None:
        """Note an annotation that cannot be used."""
        self.refused.append((printable(id), reason, printable(detail)))

    @contextmanager
    def refusing(self, id: str) -> Iterator[None]:
        """Make a `MediaProblem` inside the block the refusal of the annotation `id`, and go on."""
        try:
            yield
        except MediaProblem as problem:
            self.refuse(id, problem.reason, problem.detail)

    def add_caption(self, text: Any, *, id: str | None, where: str) -> None:
        """Take one raw caption; anything that is no usable text is noted as refused under `where`."""
        try:  # not `refusing`, which costs as much as all the rest of a caption
            usable = usable_text(text, what="caption", where=where)
        except MediaProblem as problem:
            self.refuse(id or where, problem.reason, problem.detail)
        else:
            self.annotations.append(Caption(id=None if id is None else printable(id), text=usable))

    def item(self) -> RawItem:
        """The item as JSON values, without the fields that say nothing."""
        item: dict[str, Any] = {"id": printable(self.id), "stem": printable(self.stem)}
        if self.media:
            item["media"] = [place.plain() for place in self.media]
        if self.annotations:
            item["annotations"] = [to_plain(annotation) for annotation in self.annotations]
        if self.refused:
            item["refused"] = [list(refused) for refused in self.refused]
        if self.problem:
            item["problem"] = [self.problem[0], printable(self.problem[1])]
        if self.licence is not None:
            item["licence"] = printable(self.licence)
        if self.split is not None:
            item["split"] = printable(self.split)
        if self.size is not None:
            item["size"] = list(self.size)
        return item


def usable_text(value: Any, *, what: str, where: str) -> str:
    """A raw value that should be text, without white space around it.

    Args:
        value: as the annotation file has it.
        what: the field's name in the dataset's own terms, such as `caption`.
        where: the annotation's place in the file.

    Raises:
        MediaProblem: there is none, it holds broken UTF-8, or nothing is left of it; becomes a reject of the annotation.
    """
    if not isinstance(value, str):
        raise MediaProblem("missing_field", f"{where} has no {what} text")
    if is_broken(value):
        raise MediaProblem("broken_utf8", f"{where}: {printable(value)[:200]}")
    text = value.strip()
    if not text:
        raise MediaProblem("empty_text", f"{where}: its {what} is empty")
    return text


class DraftedSource:
    """The part of a source that is the same for every raw format: units of drafted items, and records read from them."""

    def __init__(
        self,
        drafts: Callable[[], Iterable[Draft]],
        *,
        target: Target,
        load: Callable[[PlainPlace], bytes],
        size: Callable[[PlainPlace], int | None] = lambda place: None,
        limit: int | None = None,
        boxes: BoxRule | None = None,
        check: MediaCheck | None = None,
    ) -> None:
        """Args:
        drafts: reads the annotation files, in an order that never varies; only the driver calls it, when it asks for the units.
        target: the dataset that is being made.
        load: the bytes of one media file of an item; raises `MediaProblem`.
        size: how many bytes these are, as far as that is known without reading them.
        limit: take only the first so many items.
        boxes: what to do with boxes that do not fit their picture.
        check: looks into the media folder while the drafts pass by.
        """
        self._drafts = drafts
        self._target = target
        self._load = load
        self._size = size
        self._limit = limit
        self._boxes = boxes or BoxRule()
        self._check = check

    def units(self) -> Sequence[Unit]:
        return self._target.slice(self.items())

    def items(self, *, check_media: bool = True) -> Iterator[RawItem]:
        drafts = self._limited()
        if check_media and self._check is not None:
            drafts = self._check(drafts)
        return (draft.item() for draft in drafts)

    def _limited(self) -> Iterator[Draft]:
        yield from islice(self._drafts(), self._limit)  # called with the first item, so after a check of the folder

    def annotation_count(self, item: RawItem) -> int:
        return len(item.get("annotations", ())) + len(item.get("refused", ()))

    def media_bytes(self, item: RawItem) -> int | None:
        sizes = [self._size(place) for place in item.get("media", ())]
        return None if "problem" in item or None in sizes else sum(size for size in sizes if size is not None)

    def read(self, unit: Unit) -> Iterator[Record | Reject]:
        for item in unit.items:
            yield from self._read(item)

    def _read(self, item: RawItem) -> Iterator[Record | Reject]:
        annotations, refused = drafted_annotations(item)
        yield from refused
        lost: tuple[Reject, ...] = ()
        try:
            record = self._record(item, annotations)
            size = _picture_size(record)
            if size is not None:
                drawn_on = (item["size"][0], item["size"][1]) if "size" in item else None
                kept, lost = fitted(annotations, drawn_on=drawn_on, stored=size, rule=self._boxes, id=item["id"])
                record = record if kept is annotations else replace(record, annotations=kept)
            yield from lost
            if not record.annotations:
                raise MediaProblem("no_annotations", "no annotation is left for this item")
            yield record
        except MediaProblem as problem:
            yield Reject(
                id=item["id"], reason=problem.reason, detail=problem.detail, annotations=len(annotations) - len(lost)
            )

    def _record(self, item: RawItem, annotations: tuple[Annotation, ...]) -> Record:
        if "problem" in item:
            raise MediaProblem(*item["problem"])
        if not annotations:
            raise MediaProblem(*without_annotations(item))
        places: Sequence[PlainPlace] = item.get("media", ())
        media: list[Media] = []
        payload: dict[str, bytes] = {}
        file: str | None = None
        for number, place in enumerate(places):
            data = self._load(place)
            found = probe_media(
                data,
                kind=place.get("kind", "image"),
                max_pixels=self._target.max_pixels,
                check=self._target.check,
            )
            if len(places) > 1:
                found = replace(found, member=f"{number}.{found.member}")
            if "span" in place:
                found = replace(found, start_s=place["span"][0], end_s=place["span"][1])
            media.append(found)
            payload[found.member] = data
            file = file or place.get("file")
        return Record(
            key=self._target.key(item["stem"]),
            origin=Origin(
                dataset=self._target.dataset,
                split=item.get("split", self._target.split),
                id=item["id"],
                file=file,
                licence=item.get("licence"),
            ),
            media=tuple(media),
            annotations=annotations,
            payload=payload,
        )


def drafted_from_files(
    folder: MediaFolder,
    drafts: Callable[[], Iterable[Draft]],
    *,
    config: SourceConfig,
    target: Target,
    boxes: BoxRule | None = None,
) -> DraftedSource:
    """The usual source: every item names its files in one folder, which is checked before anything is converted."""

    return DraftedSource(
        drafts,
        target=target,
        load=lambda place: folder.read(place["file"]),
        size=lambda place: folder.size(place["file"]) if "file" in place else None,
        limit=config.limit,
        boxes=boxes,
        check=folder_check(folder, annotations=config.annotations),
    )


def folder_check(folder: MediaFolder, *, annotations: str, required: bool = True) -> MediaCheck:
    """Sees to it that a media folder is there, and that some of the files that drafts name are in it.

    Args:
        folder: of the source.
        annotations: the file that names the media, for the message.
        required: the folder itself must be there and hold something.
    """

    def check(drafts: Iterable[Draft]) -> Iterator[Draft]:
        if required:
            folder.check()
        names = NamedFiles(folder)
        for draft in drafts:
            for place in draft.media:
                if place.file is not None and draft.problem is None:
                    names.note(place.file)
            yield draft
        names.check(annotations=annotations)

    return check


def drafted_annotations(item: RawItem) -> tuple[tuple[Annotation, ...], tuple[Reject, ...]]:
    """The annotations that a drafted item carries, and those that were refused when its annotation file was read."""
    refused = [
        Reject(id=id, reason=reason, detail=detail, level="annotation")
        for id, reason, detail in item.get("refused", ())
    ]
    return tuple([annotation_from_plain(plain) for plain in item.get("annotations", ())]), tuple(refused)


def without_annotations(item: RawItem) -> Problem:
    """Why an item has no usable annotation: its file says so of each of them, or nothing is said about it at all."""
    if {reason for _, reason, _ in item.get("refused", ())} == {"filtered"}:
        return "filtered", "all its annotations are left out on purpose"
    return "no_annotations", "no usable annotation names this item"


def _picture_size(record: Record) -> tuple[int, int] | None:
    first = record.media[0] if record.media else None
    return None if first is None or first.width is None or first.height is None else (first.width, first.height)
