"""The manifest and the card: what a dataset holds, merged from commit records and from nothing else."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from shards.config import canonical_json, digest
from shards.errors import DatasetError
from shards.foreign import ForeignTar
from shards.index import decode_parquet, encode_parquet, index_path, read_index, tar_path
from shards.plain import PlainError, from_plain, to_plain
from shards.rejects import REJECTS_PATH, settle, write_rejects
from shards.storage import Storage
from shards.writer import CARD_PATH, UnitReport, commit_path, committed_units, summed

logger = logging.getLogger(__name__)

SCHEMA = 1
_LONGEST_ATTEMPT_S = 24 * 3600.0  # an upload begun before that has no live writer any more
MANIFEST_PATH = "manifest.parquet"

_MANIFEST = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("records", pa.int64(), nullable=False),
        pa.field("annotations", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("xxh3", pa.string(), nullable=False),
        pa.field("index_xxh3", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("config_digest", pa.string(), nullable=False),
        pa.field(
            "foreign",
            pa.struct(
                [
                    pa.field("address", pa.string(), nullable=False),
                    pa.field("bytes", pa.int64(), nullable=False),
                    pa.field("stamp", pa.string(), nullable=False),
                    pa.field("layout", pa.string(), nullable=False),
                    pa.field("xxh3", pa.string()),
                ]
            ),
        ),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """One shard, as the manifest lists it."""

    name: str  # without suffix: coco-train-00042
    index: int  # number of its unit; shards are listed in this order
    records: int
    annotations: int
    bytes: int
    xxh3: str
    index_xxh3: str
    unit: str
    config_digest: str
    foreign: ForeignTar | None = None  # somebody else's tar that holds the media; the shard then holds headers only


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a dataset is: written last, so a dataset that has a card is complete."""

    schema: int = SCHEMA
    name: str
    split: str
    shards: int
    records: int
    annotations: int
    bytes: int
    annotation_type: str | None = None  # of the records; None where there are none, or where the dataset mixes types
    annotation_types: Mapping[str, int]  # records by type
    media_kinds: Mapping[str, int]  # media items by kind
    licences: Mapping[str, int]  # records by licence, where the raw dataset says
    raw_items: int
    raw_annotations: int
    rejects: Mapping[str, int]  # raw items and annotations by reason
    config: Mapping[str, Any]  # as resolved when the dataset was made
    config_digest: str
    manifest_digest: str
    units: int = 0  # how many units the dataset is merged from; their numbers are 0 to units - 1


def merge(
    storage: Storage,
    *,
    name: str,
    split: str,
    config: Mapping[str, Any],
    config_digest: str,
    expected_units: Sequence[str],
) -> Card:
    """Write manifest, rejects and card from the commit records, and sweep what killed attempts have left.

    Merging again, or from two processes at once, writes the same bytes.

    Args:
        storage: the dataset.
        name: of the dataset.
        split: of the dataset.
        config: as resolved; stored in the card.
        config_digest: of `config`, as the commit records carry it.
        expected_units: every unit of the raw dataset, in order.

    Raises:
        DatasetError: a unit is not committed, another config wrote here, the ledger does not close, a committed file is not
            what its commit record says, or a key occurs in two shards.
    """
    commits = committed_units(storage, config_digest, rejects="left_out")
    missing = [unit for unit in expected_units if unit not in commits]
    if missing:
        raise DatasetError(
            f"{storage.url}: {len(missing)} of {len(expected_units)} units are not committed (the first is {missing[0]}); "
            "run the same `shards` command again"
        )
    surplus = sorted(set(commits) - set(expected_units))
    if surplus:
        raise DatasetError(
            f"{storage.url}: unit {surplus[0]} is committed but no part of this raw dataset ({len(surplus)} such units); "
            "the raw files changed since, so choose another `output`"
        )
    reports = sorted((commits[unit] for unit in expected_units), key=lambda report: report.index)
    entries = entries_of(reports)
    _refuse_repeats(storage, entries)
    card = build_card(reports, name=name, split=split, config=config, config_digest=config_digest, storage=storage)
    sweep(storage, {entry.name for entry in entries})
    storage.replace(MANIFEST_PATH, encode_manifest(entries))
    storage.rewrite(REJECTS_PATH, lambda file: write_rejects(file, settle(reports, storage=storage)))
    storage.replace(CARD_PATH, encode_card(card))
    return card


def sweep(storage: Storage, committed_shards: Iterable[str]) -> list[str]:
    """Remove what no commit record vouches for: temporaries of killed attempts, and shards published but never committed.

    A live attempt of a unit that is committed already may lose its temporaries here; it then finds the record and leaves.

    Returns:
        The names removed.
    """
    kept = {path(name) for name in committed_shards for path in (tar_path, index_path)}
    gone = [name for folder in ("", "shards", "index", "commits") for name in storage.temporaries(folder)]
    # Other readers put files of their own beside ours (Energon its `.tar.idx`); those are theirs.
    own = [
        name for folder in ("shards", "index") for name in storage.list(folder) if name.endswith((".tar", ".parquet"))
    ]
    gone += [name for name in own if name not in kept]
    for name in gone:
        storage.remove(name)
    storage.abandon_uploads(older_than_s=_LONGEST_ATTEMPT_S)
    if gone:
        logger.info("%s: removed %d leftovers of attempts that did not finish", storage.url, len(gone))
    return gone


def encode_card(card: Card) -> bytes:
    """The bytes of `dataset.json`; they carry their own checksum, so that `verify` sees an edit that nothing else shows."""
    fields = to_plain(card)
    return json.dumps({**fields, "checksum": digest(fields)}, indent=2, ensure_ascii=False).encode() + b"\n"


def read_card(storage: Storage) -> Card:
    """Read the card of a dataset. Raises `DatasetError` where there is none or it is damaged."""
    try:
        data = storage.read(CARD_PATH)
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise DatasetError(
            f"{storage.url} is no finished dataset (it has no {CARD_PATH}); give the folder that the `shards` verb wrote, "
            "or run that command again until it ends"
        ) from problem
    try:
        fields = json.loads(data)
        if isinstance(fields, dict):
            fields.pop("checksum", None)
        return from_plain(Card, fields)
    except ValueError as problem:
        what = f"it{problem}" if isinstance(problem, PlainError) else str(problem)
        raise DatasetError(
            f"{storage.path(CARD_PATH)} is damaged ({what}); run the same `shards` command again"
        ) from problem


def read_manifest(storage: Storage) -> tuple[ShardEntry, ...]:
    """Read the manifest of a dataset, in the order of its units. Raises `DatasetError` where it is missing or damaged."""
    advice = "run `verify repair=true` on the dataset"
    try:
        data = storage.read(MANIFEST_PATH)
    except FileNotFoundError as problem:
        raise DatasetError(f"{storage.path(MANIFEST_PATH)} is missing; {advice}") from problem
    try:
        table = decode_parquet(data, check_pages=True)
        return tuple(from_plain(ShardEntry, row) for row in table.to_pylist())
    except (pa.ArrowException, OSError, ValueError) as problem:  # a flipped bit may end in any of them
        raise DatasetError(f"{storage.path(MANIFEST_PATH)} is damaged ({problem}); {advice}") from problem


def manifest_digest(entries: Sequence[ShardEntry]) -> str:
    """Name the content of a dataset: every shard with its checksum, in order.

    The bytes of index files are left out, because they may change with the version of pyarrow while the records do not.
    """
    return digest(
        [
            [entry.name, entry.records, entry.annotations, entry.bytes, entry.xxh3, entry.unit]
            + (entry.foreign.content if entry.foreign else [])
            for entry in entries
        ]
    )


def entries_of(reports: Iterable[UnitReport]) -> tuple[ShardEntry, ...]:
    """The manifest that commit records add up to, in their order; units without records have no shard."""
    return tuple(
        ShardEntry(
            name=report.shard,
            index=report.index,
            records=report.records,
            annotations=report.annotations,
            bytes=report.bytes,
            xxh3=report.xxh3,
            index_xxh3=report.index_xxh3,
            unit=report.unit,
            config_digest=report.config_digest,
            foreign=report.foreign,
        )
        for report in reports
        if report.shard and report.xxh3 and report.index_xxh3
    )


def build_card(
    reports: Sequence[UnitReport],
    *,
    name: str,
    split: str,
    config: Mapping[str, Any],
    config_digest: str,
    storage: Storage | None = None,
) -> Card:
    """Sum up the commit records of a dataset.

    Args:
        reports: the commit records in the order of their units.
        name: of the dataset.
        split: of the dataset.
        config: as resolved.
        config_digest: of `config`.
        storage: the dataset, where `reports` come without their rejects.

    Raises:
        DatasetError: a ledger does not close, or an item was tried again that no unit has rejected.
    """
    entries = entries_of(reports)
    annotation_types = summed([report.annotation_types for report in reports])
    raw_items = raw_annotations = 0
    rejects: Counter[str] = Counter()
    for report in settle(reports, storage=storage):
        raw_items += report.raw_items
        raw_annotations += report.raw_annotations
        rejects.update([reject.reason for reject in report.rejects])
    return Card(
        name=name,
        split=split,
        shards=len(entries),
        records=sum(report.records for report in reports),
        annotations=sum(report.annotations for report in reports),
        bytes=sum(report.bytes for report in reports),
        annotation_type=next(iter(annotation_types)) if len(annotation_types) == 1 else None,
        annotation_types=annotation_types,
        media_kinds=summed([report.media_kinds for report in reports]),
        licences=summed([report.licences for report in reports]),
        raw_items=raw_items,
        raw_annotations=raw_annotations,
        rejects=dict(sorted(rejects.items())),
        config=json.loads(canonical_json(dict(config))),
        config_digest=config_digest,
        manifest_digest=manifest_digest(entries),
        units=len(reports),
    )


def _refuse_repeats(storage: Storage, entries: Sequence[ShardEntry]) -> None:
    """Check that every committed file is there and no key or shard name occurs twice; reads indices, never a tar."""
    if len({entry.name for entry in entries}) != len(entries):
        raise DatasetError(f"{storage.url}: two units wrote the same shard name; choose another `output`")
    for entry in entries:
        _check_size(storage, entry)
    for key, first, second in repeated_keys(storage, entries):
        raise DatasetError(
            f"{storage.url}: the key {key!r} occurs in {first} and in {second}; "
            "the source must give every raw item its own id"
        )


def repeated_keys(storage: Storage, entries: Sequence[ShardEntry]) -> Iterator[tuple[str, str, str]]:
    """Find keys that occur in two shards.

    Yields:
        (key, first shard, second shard).

    Raises:
        DatasetError: an index is missing or damaged.
    """
    hashes: list[npt.NDArray[np.uint64]] = []
    for entry in entries:
        keys = read_index(storage, entry.name, xxh3=entry.index_xxh3).keys
        hashes.append(
            np.fromiter((xxhash.xxh3_64_intdigest(key.encode()) for key in keys), dtype=np.uint64, count=len(keys))
        )
    if not hashes:
        return
    # Eight bytes per key, so that a billion records still fit; equal hashes are looked at again as keys.
    values, counts = np.unique(np.concatenate(hashes), return_counts=True)
    suspects = values[counts > 1]
    if not len(suspects):
        return
    seen: dict[str, str] = {}
    for entry, found in zip(entries, hashes, strict=True):
        rows = np.flatnonzero(np.isin(found, suspects))
        keys = read_index(storage, entry.name).keys if len(rows) else []
        for key in (keys[row] for row in rows):
            if key in seen:
                yield key, seen[key], entry.name
            seen.setdefault(key, entry.name)


def _check_size(storage: Storage, entry: ShardEntry) -> None:
    path = tar_path(entry.name)
    try:
        size = storage.size(path)
    except FileNotFoundError:
        size = -1
    if size != entry.bytes:
        state = "is missing" if size < 0 else f"has {size} bytes and was committed with {entry.bytes}"
        raise DatasetError(
            f"{storage.path(path)} {state}; remove {commit_path(entry.unit)} and run the same `shards` command again"
        )


def encode_manifest(entries: Sequence[ShardEntry]) -> bytes:
    """The bytes of `manifest.parquet`."""
    return encode_parquet(pa.Table.from_pylist([to_plain(entry) for entry in entries], schema=_MANIFEST))
