"""Samples of other people's webdataset and img2dataset tars → records: members that share a name up to its first dot are one.

A tar of this project is read as well, where only the tars are left of a dataset: its JSON members hold all that a record knows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import xxhash

from pipelines.drafts import usable_text
from pipelines.raw_text import is_broken, printable
from pipelines.source import Target
from shards.codec import HEADER_MEMBER, decode_record
from shards.config import Config
from shards.errors import DamagedRecordError
from shards.foreign import UNCHECKED
from shards.index import Member
from shards.media import MediaProblem, probe_media
from shards.records import Annotation, Caption, Label, Media, MediaKind, Origin, Record, Reject
from shards.tar_walk import Loss, TarMember, TarWalk

_EXTENSIONS: dict[MediaKind, tuple[str, ...]] = {
    "image": ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm"),
    "video": ("mp4", "webm", "mkv", "avi", "mov", "m4v", "3gp", "flv", "wmv", "mpg", "mpeg", "ts", "m2ts", "ogv"),
    "audio": ("wav", "flac", "mp3", "ogg", "opus", "m4a", "aac"),
}
_KINDS = {extension: kind for kind, extensions in _EXTENSIONS.items() for extension in extensions}
_TEXTS = frozenset({"txt", "json", "cls", "caption", "text"})
_REGIONS = "npz"  # media in tars of this project; beside other people's pictures it may be anything
_OWN_FIELDS = frozenset({"schema", "key", "origin", "media", "annotations"})  # of the JSON members of this project
_SPELT_ALIKE = {"jpeg": "jpg", "tiff": "tif"}


class ForeignColumns(Config):
    """Where a sample's annotations are: the extension of a text member, or `json:` and the name of a field."""

    caption: str | None = None
    """e.g. txt, json:caption; unset: txt, else the JSON's `caption`; in tars of this project all that their JSON holds"""
    label: str | None = None
    """e.g. cls, json:class; unset: cls, where there is no caption"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Members of one sample; `texts` holds the bytes of the small ones, `media` (extension, member, bytes if read)."""

    stem: str
    texts: Mapping[str, bytes]
    media: tuple[tuple[str, TarMember, bytes | None], ...]
    problem: MediaProblem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A record, with its media's places in the foreign tar."""

    record: Record
    members: tuple[Member, ...]


def read_samples(walk: TarWalk, *, checksums: bool) -> Iterator[Sample | Loss]:
    """Group a tar's neighbouring members into samples; losses pass through.

    Args:
        walk: of the tar.
        checksums: whether media are read too.
    """
    stem: str | None = None
    texts: dict[str, bytes] = {}
    media: list[tuple[str, TarMember, bytes | None]] = []
    problem: MediaProblem | None = None

    def finished() -> Iterator[Sample]:
        if stem is not None:
            yield Sample(stem=stem, texts=dict(texts), media=tuple(media), problem=problem)

    for member in walk.walk():
        if isinstance(member, Loss):
            yield member
            continue
        own, extension = _split(member.name)
        if own.rpartition("/")[2].startswith("__") and own.endswith("__"):
            continue  # notes about the whole shard, by webdataset's convention
        if own != stem:
            yield from finished()
            stem, texts, media, problem = own, {}, [], None
        problem = problem or _problem(member, extension)
        if problem is not None:
            continue
        if extension in _TEXTS:
            texts[extension] = walk.data(member)
        elif extension.rpartition(".")[2] in _KINDS or (extension == _REGIONS and _is_own(texts)):
            media.append((extension, member, walk.data(member) if checksums else None))
    yield from finished()


class SampleReader:
    """Samples of one tar → records or rejects; `taken` keeps a stem from being used twice."""

    def __init__(self, *, target: Target, label: str, prefix: bool, columns: ForeignColumns) -> None:
        """Args:
        target: the dataset that is being made.
        label: of the tar, unique among those that are indexed together.
        prefix: whether keys name the tar, because stems are unique in one tar only.
        columns: where annotations are.
        """
        self._target = target
        self._label = label
        self._prefix = prefix
        self._columns = columns
        self._taken: set[str] = set()

    def raw_id(self, stem: str) -> str:
        """A sample's id, unique in the dataset. img2dataset's stems begin with the number of their shard already."""
        return printable(stem if not self._prefix or stem.startswith(self._label) else f"{self._label}/{stem}")

    def read(self, sample: Sample) -> Iterator[Placed | Reject]:
        """Exactly one record or one item-level reject, and a reject of every single annotation that is unusable."""
        id = self.raw_id(sample.stem)
        refusal = self._refusal(sample)
        if refusal is not None:
            lost = annotation_count(sample, self._columns)
            yield Reject(id=id, reason=refusal.reason, detail=refusal.detail, annotations=lost)
            return
        kept: list[Annotation] = []
        try:
            own = _own(sample, self._columns)
            if own is not None:
                kept.extend(own.annotations)
                yield self._placed_again(sample, id, own)
                return
            for number, take in enumerate(_annotations(sample, self._columns)):
                try:
                    kept.append(take())
                except MediaProblem as problem:
                    yield Reject(id=f"{id}#{number}", reason=problem.reason, detail=problem.detail, level="annotation")
            if not sample.media:
                raise MediaProblem("missing_media", f"the sample has no picture, clip or sound{_why(sample)}")
            if not kept:
                raise MediaProblem("no_annotations", "the sample has no usable caption or label")
            yield self._placed(sample, id, tuple(kept))
        except MediaProblem as problem:
            yield Reject(id=id, reason=problem.reason, detail=problem.detail, annotations=len(kept))

    def _refusal(self, sample: Sample) -> MediaProblem | None:
        if sample.stem in self._taken:
            return MediaProblem("duplicate_id", f"a second sample {printable(sample.stem)} in the same tar")
        self._taken.add(sample.stem)
        return sample.problem

    def _placed(self, sample: Sample, id: str, annotations: tuple[Annotation, ...]) -> Placed:
        note = _json(sample) if "json" in sample.texts else {}
        media: list[Media] = []
        members: list[Member] = []
        for number, (extension, member, data) in enumerate(sample.media):
            found = _look(extension, data, note, target=self._target)
            if len(sample.media) > 1:
                found = replace(found, member=f"{number}.{found.member}")
            media.append(found)
            xxh3 = UNCHECKED if data is None else xxhash.xxh3_64_intdigest(data)
            members.append(Member(extension=found.member, offset=member.offset, size=member.size, xxh3=xxh3))
        licence = note.get("license") or note.get("licence")
        record = Record(
            key=self._target.key(id),
            origin=Origin(
                dataset=self._target.dataset,
                split=self._target.split,
                id=id,
                file=printable(sample.media[0][1].name),
                licence=licence if isinstance(licence, str) and licence else None,
            ),
            media=tuple(media),
            annotations=annotations,
            payload={each.member: data or b"" for each, (_, _, data) in zip(media, sample.media, strict=True)},
        )
        return Placed(record=record, members=tuple(members))

    def _placed_again(self, sample: Sample, id: str, own: Record) -> Placed:
        """A record of this project under a key of the dataset that is being made; its media are looked at once more."""
        there = {extension: (member, data) for extension, member, data in sample.media}
        media: list[Media] = []
        members: list[Member] = []
        payload: dict[str, bytes] = {}
        for said in own.media:
            if said.member not in there:
                raise MediaProblem("missing_media", f"the sample has no .{said.member}, which its .json names")
            member, data = there[said.member]
            if data is None:
                media.append(said)
            else:
                seen = probe_media(data, kind=said.kind, max_pixels=self._target.max_pixels, check=self._target.check)
                media.append(replace(seen, member=said.member, start_s=said.start_s, end_s=said.end_s))
            xxh3 = UNCHECKED if data is None else xxhash.xxh3_64_intdigest(data)
            members.append(Member(extension=said.member, offset=member.offset, size=member.size, xxh3=xxh3))
            payload[said.member] = data or b""
        origin = replace(own.origin, dataset=self._target.dataset, split=self._target.split)
        record = replace(own, key=self._target.key(id), origin=origin, media=tuple(media), payload=payload)
        return Placed(record=record, members=tuple(members))


def annotation_count(sample: Sample, columns: ForeignColumns) -> int:
    """How many raw annotations a sample holds: the annotation side of the ledger."""
    try:
        own = _own(sample, columns)
        return len(_annotations(sample, columns) if own is None else own.annotations)
    except MediaProblem:
        return 0


def _split(name: str) -> tuple[str, str]:
    """`a/b.left.JPG` → (`a/b`, `left.jpg`)."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def _problem(member: TarMember, extension: str) -> MediaProblem | None:
    name = printable(member.name)
    if ".." in PurePosixPath(member.name).parts or member.name.startswith(("/", "\\")):
        return MediaProblem("outside_media", f"the member name {name} leads out of the dataset")
    if member.is_link:
        return MediaProblem("outside_media", f"{name} is a link")
    if not extension:
        return MediaProblem("unsupported", f"{name} has no extension, so it says not what it is")
    return None


def _is_own(texts: Mapping[str, bytes]) -> bool:
    """Whether the members read so far are of a record that this project wrote."""
    try:
        note = json.loads(texts.get("json", b"0"))
    except (ValueError, RecursionError):
        return False
    return isinstance(note, dict) and note.keys() >= _OWN_FIELDS


def _own(sample: Sample, columns: ForeignColumns) -> Record | None:
    """The record that a tar of this project holds, without its media; None for other samples, and where columns are told.

    Raises:
        MediaProblem: it is damaged, or of another version.
    """
    if columns != ForeignColumns() or not _is_own(sample.texts):
        return None
    try:
        return decode_record(str(_json(sample)["key"]), {HEADER_MEMBER: sample.texts["json"]})
    except DamagedRecordError as problem:
        raise MediaProblem("missing_field", str(problem)) from problem


def _annotations(sample: Sample, columns: ForeignColumns) -> Sequence[Callable[[], Annotation]]:
    """What makes each annotation of a sample; each raises `MediaProblem` where it is unusable."""
    if columns.caption is not None or columns.label is None:
        captions = _captions(sample, columns.caption)
        if captions or columns.caption is not None:
            return [partial(_caption, raw) for raw in captions]
    raw = _field(sample, columns.label or "cls")
    return [] if raw is None else [partial(_label, raw)]


def _caption(raw: Any) -> Caption:
    return Caption(text=usable_text(raw, what="caption", where="the sample"))


def _captions(sample: Sample, column: str | None) -> Sequence[Any]:
    found = _field(sample, column) if column is not None else _field(sample, "txt")
    if found is None and column is None:
        found = _field(sample, "json:caption")
    if isinstance(found, list):
        return found
    return [] if found is None else [found]


def _field(sample: Sample, column: str) -> Any:
    extension, _, name = column.partition(":")
    if extension not in sample.texts:
        return None
    if extension == "json":
        return _json(sample).get(name)
    return sample.texts[extension].decode("utf-8", "surrogateescape")


def _json(sample: Sample) -> Mapping[str, Any]:
    try:
        found = json.loads(sample.texts["json"])
    except (ValueError, RecursionError) as problem:
        raise MediaProblem("missing_field", f"its .json member is not UTF-8 JSON ({problem})") from problem
    if not isinstance(found, dict):
        raise MediaProblem("missing_field", "its .json member is no object")
    return found


def _label(raw: Any) -> Label:
    text = str(raw).strip()
    if not text:
        raise MediaProblem("empty_text", "its label is empty")
    if is_broken(text):
        raise MediaProblem("broken_utf8", printable(text)[:200])
    return Label(name=text, index=int(text) if text.isascii() and text.isdecimal() else None)


def _look(extension: str, data: bytes | None, note: Mapping[str, Any], *, target: Target) -> Media:
    """Describe a media member: by its bytes, or unread by what img2dataset's JSON says of it."""
    bare = extension.rpartition(".")[2]
    kind = _KINDS[bare]
    if data is not None:
        return probe_media(data, kind=kind, max_pixels=target.max_pixels, check=target.check)
    size = tuple(note.get(side) for side in ("width", "height")) if kind == "image" else (None, None)
    known = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size)
    width, height = size if known else (None, None)
    return Media(member=_SPELT_ALIKE.get(bare, bare), kind=kind, width=width, height=height)


def _why(sample: Sample) -> str:
    """What img2dataset noted about a download that failed."""
    if "json" not in sample.texts:
        return ""
    note = _json(sample)
    said = next((note[name] for name in ("error_message", "status") if isinstance(note.get(name), str)), None)
    return f" ({printable(said)[:200]})" if said else ""
