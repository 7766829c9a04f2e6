"""Another dataset's annotations on pictures that are stored already: a column of annotations, beside the shards.

Per record, the column holds its annotations as JSON text, and the rejects of what could not be used. `ledger.json` is written last,
when every raw item and annotation is accounted for; it names each part with its checksum, so it is to the column what the
manifest is to the dataset. Seen through such a column, a dataset consists of the records that have annotations in it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import xxhash

from shards.codec import annotation_from_plain
from shards.columns import COLUMN_CARD, part_path, sidecar_folder
from shards.config import digest
from shards.errors import DatasetError
from shards.index import decode_parquet, encode_parquet, read_index
from shards.plain import PlainError, from_plain, to_plain
from shards.records import Annotation, Reject
from shards.storage import Storage

SCHEMA = 1
KIND = "annotations"  # in column.json: how a column of this form is told from others
LEDGER = "ledger.json"
REJECTS = "rejects.parquet"

_REJECTS = pa.schema(
    [
        pa.field(name, pa.int64() if name == "annotations" else pa.string(), nullable=False)
        for name in ("unit", "id", "level", "reason", "detail", "annotations")
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What the column holds for one shard."""

    shard: str
    records: int  # with at least one annotation
    annotations: int
    content: str  # xxh3 of keys and annotations, whatever version of pyarrow wrote them
    xxh3: str  # of the file


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """A finished column: raw items in = items matched + rejects; raw annotations in = written + rejected + lost with their item."""

    schema: int = SCHEMA
    raw_items: int
    raw_annotations: int
    matched_items: int
    records: int  # with at least one annotation
    annotations: int
    annotation_type: str | None = None
    rejects: Mapping[str, int]  # raw items and annotations by reason
    rejects_xxh3: str  # of rejects.parquet
    parts: tuple[Part, ...]

    @property
    def digest(self) -> str:
        """Names the content of the column."""
        return digest([[part.shard, part.records, part.annotations, part.content] for part in self.parts])


def part_table(annotations: Sequence[Sequence[Annotation]], rejects: Sequence[Sequence[Reject]]) -> pa.Table:
    """The values of one part, one row per record of the shard, empty lists included."""
    return pa.table(
        {
            "count": pa.array([len(row) for row in annotations], pa.int32()),
            "annotations": pa.array([_text(row) for row in annotations], pa.string()),
            "rejects": pa.array([_text(row) for row in rejects], pa.string()),
        }
    )


def close_ledger(
    storage: Storage,
    folder: str,
    *,
    shards: Sequence[str],
    raw_items: int,
    raw_annotations: int,
    unmatched: Sequence[Reject],
) -> Ledger:
    """Write `rejects.parquet` and `ledger.json` of a column whose parts are all written; a second call writes the same bytes.

    Args:
        storage: the dataset.
        folder: of the column.
        shards: every shard of the dataset, in order.
        raw_items: of the other dataset, matched or not.
        raw_annotations: that these items hold.
        unmatched: what is in no shard: items without a picture here, and their annotations that are refused by name.

    Raises:
        DatasetError: a part is missing or damaged, or items or annotations are not accounted for.
    """
    rows = [{"unit": "", **to_plain(reject)} for reject in unmatched]
    parts: list[Part] = []
    types: Counter[str] = Counter()
    for shard in shards:
        data, table = read_part(storage, folder, shard)
        part, kinds = _tally(shard, data, table)
        parts.append(part)
        types += kinds
        rows += [{"unit": shard, **plain} for text in table["rejects"].to_pylist() for plain in json.loads(text)]
    items = [row for row in rows if row["level"] == "item"]
    rejects = encode_parquet(pa.Table.from_pylist(rows, schema=_REJECTS))
    ledger = Ledger(
        raw_items=raw_items,
        raw_annotations=raw_annotations,
        matched_items=raw_items - sum(row["unit"] == "" for row in items),
        records=sum(part.records for part in parts),
        annotations=sum(part.annotations for part in parts),
        annotation_type=next(iter(types)) if len(types) == 1 else None,
        rejects=dict(sorted(Counter(row["reason"] for row in rows).items())),
        rejects_xxh3=xxhash.xxh3_64_hexdigest(rejects),
        parts=tuple(parts),
    )
    accounted = ledger.annotations + len(rows) - len(items) + sum(row["annotations"] for row in items)
    if accounted != raw_annotations:
        raise DatasetError(
            f"{storage.path(folder)}: {raw_annotations} raw annotations went in and {accounted} are accounted for; "
            "remove the folder and run the same `annotate` command again"
        )
    storage.replace(f"{folder}/{REJECTS}", rejects)
    fields = to_plain(ledger)
    signed = {**fields, "checksum": digest(fields)}  # so that `verify` sees an edit that nothing else shows
    storage.replace(f"{folder}/{LEDGER}", json.dumps(signed, indent=2, ensure_ascii=False).encode() + b"\n")
    return ledger


def column_digest8(column: str, card: Mapping[str, Any]) -> str:
    """Names a column of annotations by everything that makes it."""
    return digest({"column": column, **card})[:8]


def folder_of(card: Mapping[str, Any]) -> str:
    """The folder that a column with this `column.json` lies in. Raises `KeyError` where it names no column."""
    made = {name: value for name, value in card.items() if name not in ("column", "digest8")}
    return sidecar_folder(card["column"], column_digest8(card["column"], made))


def read_ledger(storage: Storage, folder: str) -> Ledger:
    """Read what a finished column holds. Raises `DatasetError` where it is not finished, or is no column of annotations."""
    try:
        card = json.loads(storage.read(f"{folder}/{COLUMN_CARD}"))
        if not isinstance(card, dict) or card.get("kind") != KIND:
            raise DatasetError(
                f"{storage.path(folder)} is no column of annotations; name one that `annotate` made, or read it as a sidecar"
            )
        fields = json.loads(storage.read(f"{folder}/{LEDGER}"))
        if not isinstance(fields, dict) or fields.pop("checksum", None) != digest(fields):
            raise PlainError(" does not match its own checksum")
        return from_plain(Ledger, fields)
    except FileNotFoundError as problem:
        raise DatasetError(
            f"{storage.path(folder)} is not finished; run the same `annotate` command again"
        ) from problem
    except ValueError as problem:
        what = f"its ledger{problem}" if isinstance(problem, PlainError) else str(problem)
        raise DatasetError(f"{storage.path(folder)} is damaged ({what}); remove it and annotate again") from problem


def check_column(
    storage: Storage, folder: str, *, shards: Mapping[str, str | None], manifest_digest: str
) -> Iterator[tuple[str, str | None, str]]:
    """Check a column of annotations against the dataset and against itself; yields (file, key, what) per damage.

    Args:
        storage: the dataset.
        folder: of the column.
        shards: every shard of the dataset, with the checksum of its index.
        manifest_digest: of the dataset.
    """
    remedy = "remove the folder and run the same `annotate` command again"
    try:
        card = json.loads(storage.read(f"{folder}/{COLUMN_CARD}"))
        ledger = read_ledger(storage, folder)
        named = folder_of(card)
    except (DatasetError, ValueError, KeyError, FileNotFoundError) as problem:
        yield folder, None, str(problem)
        return
    if named != folder:
        yield f"{folder}/{COLUMN_CARD}", None, f"what it says belongs into {named}; {remedy}"
    if card.get("manifest") != manifest_digest:
        yield f"{folder}/{COLUMN_CARD}", None, f"made for another dataset (manifest {card.get('manifest')}); {remedy}"
        return
    if [part.shard for part in ledger.parts] != list(shards):
        yield f"{folder}/{LEDGER}", None, f"it lists other shards than the dataset has; {remedy}"
    for part in ledger.parts:
        yield from _check_part(storage, folder, part, index_xxh3=shards.get(part.shard), remedy=remedy)
    path = f"{folder}/{REJECTS}"
    if not storage.exists(path) or storage.checksum(path) != ledger.rejects_xxh3:
        yield path, None, f"it is missing or damaged; {remedy}"


def _check_part(
    storage: Storage, folder: str, part: Part, *, index_xxh3: str | None, remedy: str
) -> Iterator[tuple[str, str | None, str]]:
    path = part_path(folder, part.shard)
    try:
        data, table = read_part(storage, folder, part.shard)
        keys = read_index(storage, part.shard, xxh3=index_xxh3).keys
    except DatasetError as problem:
        yield path, None, str(problem)
        return
    if xxhash.xxh3_64_hexdigest(data) != part.xxh3:
        yield path, None, f"it does not match the checksum in its ledger; {remedy}"
    own = table["key"].to_pylist()
    for key in sorted(set(own) ^ set(keys)):
        yield path, key, f"a row that only the {'column' if key in set(own) else 'shard'} has; {remedy}"
    for key, count, text in zip(own, table["count"].to_pylist(), table["annotations"].to_pylist(), strict=True):
        try:
            found = len([annotation_from_plain(plain) for plain in json.loads(text)])
        except ValueError as problem:
            yield path, key, f"its annotations cannot be read ({str(problem).strip()}); {remedy}"
            continue
        if found != count:
            yield path, key, f"it has {found} annotations, and the column counts {count}; {remedy}"


def read_part(storage: Storage, folder: str, shard: str) -> tuple[bytes, pa.Table]:
    """The bytes and the table of one part. Raises `DatasetError` where it is missing, damaged or none."""
    path = part_path(folder, shard)
    try:
        data = storage.read(path)
        table = decode_parquet(data)
    except FileNotFoundError as problem:
        raise DatasetError(f"{storage.path(path)} is missing; run the same `annotate` command again") from problem
    except (pa.ArrowException, OSError) as problem:  # pyarrow reports some damage as OSError
        raise DatasetError(f"{storage.path(path)} is damaged ({problem}); remove it and annotate again") from problem
    if not {"key", "count", "annotations", "rejects"} <= set(table.column_names):
        raise DatasetError(f"{storage.path(path)} is no part of a column of annotations; remove it and annotate again")
    return data, table


def _tally(shard: str, data: bytes, table: pa.Table) -> tuple[Part, Counter[str]]:
    """Count a part, and the annotations in it by type."""
    counts = table["count"].to_pylist()
    texts = table["annotations"].to_pylist()
    content = xxhash.xxh3_64()
    types: Counter[str] = Counter()
    for key, text in zip(table["key"].to_pylist(), texts, strict=True):
        content.update(f"{key}\n{text}\n".encode())
        types.update(plain["type"] for plain in json.loads(text))
    part = Part(
        shard=shard,
        records=sum(count > 0 for count in counts),
        annotations=sum(counts),
        content=content.hexdigest(),
        xxh3=xxhash.xxh3_64_hexdigest(data),
    )
    return part, types


def _text(row: Sequence[Annotation] | Sequence[Reject]) -> str:
    return json.dumps([to_plain(each) for each in row], ensure_ascii=False, separators=(",", ":"), allow_nan=False)
