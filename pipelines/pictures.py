"""Pictures with captions: the raw item that all image-caption sources share, and its way to a record.

A source turns its annotation file into `CaptionedPicture`s; from there on there is one path for all of them, so that a
broken picture is the same named reject whatever dataset it came from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.raw_text import is_broken, printable
from pipelines.source import RawItem, Target, Unit
from shards.errors import InputError
from shards.media import MediaProblem, probe_image
from shards.records import Caption, Media, Origin, Record, Reject, RejectReason
from shards.storage import open_storage

Problem = tuple[RejectReason, str]  # why an item or an annotation cannot become (part of) a record
_URL = re.compile(r"(https?|ftp)://", re.IGNORECASE)
_PROBES_OF_A_FOLDER = 50


@dataclass(slots=True, kw_only=True)
class CaptionedPicture:
    """One raw item while its annotation file is being read; `item()` freezes it into what a unit carries."""

    id: str
    stem: str  # of the record's key
    file: str | None = None  # relative to the media folder
    licence: str | None = None
    split: str | None = None  # where items of one run come from several splits
    captions: list[tuple[str | None, str]] = field(default_factory=list)  # (annotation id, text)
    refused: list[tuple[str, RejectReason, str]] = field(default_factory=list)  # annotations: (id, reason, detail)
    problem: Problem | None = None  # makes the whole item a reject
    extra: dict[str, Any] = field(default_factory=dict)  # what a source needs to load the media, if it is no plain file

    def add_caption(self, text: Any, *, id: str | None, where: str) -> None:
        """Take one raw caption; anything that is no usable text is noted as refused under `where`."""
        name = printable(id or where)
        if not isinstance(text, str):
            self.refused.append((name, "missing_field", f"{where} has no caption text"))
        elif is_broken(text):
            self.refused.append((name, "broken_utf8", f"{where}: {printable(text)[:200]}"))
        elif not text.strip():
            self.refused.append((name, "empty_text", f"{where} is empty"))
        else:
            self.captions.append((None if id is None else printable(id), text.strip()))

    def item(self) -> RawItem:
        """The item as JSON values, without the fields that say nothing."""
        everything = {
            "id": printable(self.id),
            "stem": printable(self.stem),
            "file": None if self.file is None else printable(self.file),
            "licence": self.licence,
            "split": self.split,
            "captions": [list(caption) for caption in self.captions],
            "refused": [list(refused) for refused in self.refused],
            "problem": list(self.problem) if self.problem else None,
        }
        return {name: value for name, value in (everything | self.extra).items() if value not in (None, [])}


@dataclass(frozen=True, slots=True)
class MediaFolder:
    """Where the media files of a source lie: a local folder, or any URL that `shards.storage` opens."""

    root: str

    @property
    def is_local(self) -> bool:
        return "://" not in self.root

    def read(self, file: str) -> bytes:
        """Read one file. Raises `MediaProblem` when it is not there or cannot be read."""
        try:
            if self.is_local:
                return (Path(self.root) / file).read_bytes()
            return open_storage(self.root).read(file)
        except FileNotFoundError as error:
            raise MediaProblem("missing_media", f"{file} is not in the media folder") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
            raise MediaProblem("missing_media", f"{file} cannot be read: {error}") from error

    def size(self, file: str) -> int | None:
        """Size of one local file, None where it is not there or the folder is remote."""
        try:
            return (Path(self.root) / file).stat().st_size if self.is_local else None
        except (OSError, ValueError):
            return None

    def check(self, files: Sequence[str], *, annotations: str) -> None:
        """Find a wrong media folder before the run starts: it is there, holds something, and some of `files`.

        Only a few files, spread over the list, are looked up. Nothing is checked where the folder is remote.
        """
        if not self.is_local:
            return
        root = Path(self.root)
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "does not exist"
            raise InputError(f"source.media: {root.absolute()} {what}; point source.media at the folder of pictures")
        if next(root.iterdir(), None) is None:
            raise InputError(f"source.media: {root.absolute()} is empty; unpack the pictures there")
        probes = files[:: max(1, len(files) // _PROBES_OF_A_FOLDER)]
        if probes and not any((root / file).is_file() for file in probes):
            raise InputError(
                f"source.media: none of {len(probes)} pictures that {annotations} names is under {root.absolute()} "
                f"(looked for {probes[0]}); point source.media at the folder that the names are relative to"
            )


def is_remote(place: str) -> bool:
    """Whether a place that an annotation file names is a URL and no file."""
    return _URL.match(place) is not None


class CaptionedPictures:
    """The part of a source that is the same for every set of pictures with captions."""

    def __init__(
        self,
        items: Callable[[], Sequence[CaptionedPicture]],
        *,
        target: Target,
        load: Callable[[RawItem], bytes],
        size: Callable[[RawItem], int | None],
    ) -> None:
        """Args:
        items: reads the annotation file; only the driver calls it, when it asks for the units.
        target: the dataset that is being made.
        load: the bytes of an item's picture; raises `MediaProblem`.
        size: how many bytes these are, as far as that is known without reading them.
        """
        self._items = items
        self._target = target
        self._load = load
        self._size = size

    def units(self) -> Sequence[Unit]:
        return self._target.slice([item.item() for item in self._items()])

    def annotation_count(self, item: RawItem) -> int:
        return len(item.get("captions", ())) + len(item.get("refused", ()))

    def media_bytes(self, item: RawItem) -> int | None:
        return None if "problem" in item else self._size(item)

    def read(self, unit: Unit) -> Iterator[Record | Reject]:
        for item in unit.items:
            yield from self._read(item)

    def _read(self, item: RawItem) -> Iterator[Record | Reject]:
        for id, reason, detail in item.get("refused", ()):
            yield Reject(id=id, reason=reason, detail=detail, level="annotation")
        captions = tuple(Caption(id=id, text=text) for id, text in item.get("captions", ()))
        try:
            yield self._record(item, captions)
        except MediaProblem as problem:
            yield Reject(id=item["id"], reason=problem.reason, detail=problem.detail, annotations=len(captions))

    def _record(self, item: RawItem, captions: tuple[Caption, ...]) -> Record:
        if "problem" in item:
            raise MediaProblem(*item["problem"])
        if not captions:
            raise MediaProblem("no_annotations", "no caption is left for this picture")
        data = self._load(item)
        member, width, height = probe_image(data, max_pixels=self._target.max_pixels)
        return Record(
            key=self._target.key(item["stem"]),
            origin=Origin(
                dataset=self._target.dataset,
                split=item.get("split", self._target.split),
                id=item["id"],
                file=item.get("file"),
                licence=item.get("licence"),
            ),
            media=(Media(member=member, kind="image", width=width, height=height),),
            annotations=captions,
            payload={member: data},
        )


def pictures_in(
    folder: MediaFolder, read: Callable[[], Sequence[CaptionedPicture]], *, annotations: str, target: Target
) -> CaptionedPictures:
    """The usual source: every item names a file in one folder, which is checked before anything is converted."""

    def items() -> Sequence[CaptionedPicture]:
        pictures = read()
        folder.check([picture.file for picture in pictures if picture.file], annotations=annotations)
        return pictures

    return CaptionedPictures(
        items,
        target=target,
        load=lambda item: folder.read(item["file"]),
        size=lambda item: folder.size(item["file"]),
    )
