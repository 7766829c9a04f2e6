"""A record to tar members and back: the JSON header, the media as found, the first caption, and tar headers that never vary."""

from __future__ import annotations

import json
import re
import tarfile
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from shards.errors import DamagedRecordError, DatasetError
from shards.plain import PlainError, checked_json, from_plain
from shards.records import Annotation, Caption, Media, Origin, Record

SCHEMA = 1
BLOCK = 512  # bytes; tar pads every member to this
TAR_END = bytes(2 * BLOCK)
HEADER_MEMBER = "json"

_KEY = re.compile(r"[A-Za-z0-9_-]+")
_MEMBER = re.compile(r"[a-z0-9]+(\.[a-z0-9]+)?")
_OWN_MEMBERS = frozenset({"json", "txt"})  # never names of media
_ANNOTATION_TYPES: dict[str, type[Annotation]] = {kind.type: kind for kind in typing.get_args(Annotation)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What the JSON member says beside `schema` and the annotations: a `Record` to be, which knows its types."""

    key: str
    origin: Origin
    media: tuple[Media, ...]


def encode_record(record: Record) -> list[tuple[str, bytes]]:
    """Write a record as tar members `(extension, bytes)`, sorted by extension.

    `json` is the header; each media file keeps its bytes; a captioned picture also gets `txt`, its first caption, so that
    other trainers can use the shard as it is.

    Raises:
        DatasetError: the record breaks a rule of the format, so that it could not be read back.
    """
    _check_names(record)
    try:
        text = f'{{"schema": {SCHEMA}, {checked_json(record)[1:]}'.encode()
    except (PlainError, UnicodeEncodeError) as problem:
        raise DatasetError(
            f"record {record.key!r}: its header{_sentence(problem)}; mend the source that made it"
        ) from problem
    members = [(HEADER_MEMBER, text), *record.payload.items()]
    first = record.annotations[0] if record.annotations else None
    if type(first) is Caption and "image" in [media.kind for media in record.media]:
        members.append(("txt", first.text.encode()))
    members.sort()
    return members


def decode_record(key: str, members: Mapping[str, bytes]) -> Record:
    """Read a record back from its tar members.

    Args:
        key: the key under which the members lie; the header must say the same.
        members: extension to bytes. Without any media member the record comes without payload.

    Raises:
        DamagedRecordError: the header is missing, broken or about another record, or one of several media is missing.
    """
    if "json" not in members:
        raise DamagedRecordError(f"record {key!r} has no '.json' member; index foreign shards with the `index` verb")
    try:
        header = json.loads(members["json"])
        parsed, annotations = _parse_header(header)
    except (ValueError, RecursionError) as problem:
        raise DamagedRecordError(f"record {key!r}: its '.json' member{_sentence(problem)}") from problem
    if parsed.key != key:
        raise DamagedRecordError(f"record {key!r}: its '.json' member belongs to {parsed.key!r}")
    payload = {media.member: members[media.member] for media in parsed.media if media.member in members}
    if payload and len(payload) < len(parsed.media):
        lost = next(media.member for media in parsed.media if media.member not in payload)
        raise DamagedRecordError(f"record {key!r} has no {'.' + lost!r} member, although its header names one")
    return Record(key=key, origin=parsed.origin, media=parsed.media, annotations=annotations, payload=payload)


def annotation_from_plain(item: Any) -> Annotation:
    """Build an annotation from its JSON values, by the `type` they name. Raises `PlainError` where they do not fit."""
    # An exact look first: `Mapping` asks far around, for every annotation of every record.
    fields = dict(item) if type(item) is dict or isinstance(item, Mapping) else {}
    kind = _ANNOTATION_TYPES.get(fields.pop("type", ""))
    if kind is None:
        raise PlainError(f" has no known type (known: {', '.join(sorted(_ANNOTATION_TYPES))})")
    return from_plain(kind, fields)


def tar_header(name: str, size: int) -> bytes:
    """Make the tar header of a regular file: mode 644, owner 0, time 0, whatever the machine and the hour.

    Plain USTAR where name and size fit; otherwise tarfile's PAX form, which is as deterministic and several times slower.
    """
    raw = name.encode()
    if len(raw) > 100 or size >= 8**11:
        member = tarfile.TarInfo(name)
        member.size = size
        return member.tobuf(tarfile.PAX_FORMAT, "utf-8")
    digits = b"%011o" % size
    checksum = _USTAR_SUM + sum(raw) + sum(digits)
    return b"".join(
        (raw.ljust(100, b"\0"), _USTAR_OWNER, digits, b"\0", _USTAR_TIME, b"%06o\0 " % checksum, _USTAR_TAIL)
    )


_USTAR_OWNER = b"0000644\0" + b"0000000\0" * 2  # mode, user, group
_USTAR_TIME = b"0" * 11 + b"\0"
_USTAR_TAIL = (b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2).ljust(BLOCK - 156, b"\0")
_USTAR_SUM = (
    sum(_USTAR_OWNER) + sum(_USTAR_TIME) + sum(_USTAR_TAIL) + 8 * ord(" ")
)  # the sum counts its own field as blanks


def _check_names(record: Record) -> None:
    if not _KEY.fullmatch(record.key):
        raise DatasetError(
            f"record {record.key!r}: keys are made of A-Z a-z 0-9 _ and -, because the first dot of a tar name ends the key"
        )
    names = tuple([media.member for media in record.media])
    if not _are_media_members(names):
        raise DatasetError(
            f"record {record.key!r}: media members {[*names]} must be distinct extensions such as 'jpg' or '0.jpg'"
        )
    if names != tuple(record.payload) and set(names) != set(record.payload):
        raise DatasetError(
            f"record {record.key!r}: its header names the media {sorted(names)} but it carries {sorted(record.payload)}"
        )
    if len(record.annotations) > 1 and len(kinds := {annotation.type for annotation in record.annotations}) > 1:
        raise DatasetError(
            f"record {record.key!r} mixes the annotation types {sorted(kinds)}; write one dataset per type"
        )


def _parse_header(header: Any) -> tuple[_Header, tuple[Annotation, ...]]:
    if not isinstance(header, dict):
        raise PlainError(" is not an object")
    fields = dict(header)
    schema = fields.pop("schema", None)
    if schema != SCHEMA:
        raise PlainError(f" has schema {schema!r}, and this version reads {SCHEMA}")
    annotations = fields.pop("annotations", None)
    if not isinstance(annotations, list):
        raise PlainError(" has no list of annotations")
    return from_plain(_Header, fields), tuple(_annotation_at(place, item) for place, item in enumerate(annotations))


@lru_cache(256)
def _are_media_members(names: tuple[str, ...]) -> bool:
    return len(set(names)) == len(names) and all(_MEMBER.fullmatch(name) and name not in _OWN_MEMBERS for name in names)


def _annotation_at(place: int, item: Any) -> Annotation:
    try:
        return annotation_from_plain(item)
    except PlainError as problem:
        raise PlainError(f".annotations[{place}]{problem}") from None


def _sentence(problem: Exception) -> str:
    return str(problem) if isinstance(problem, PlainError) else f" is not UTF-8 JSON ({problem})"
