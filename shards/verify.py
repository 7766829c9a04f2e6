"""Checking a dataset from end to end: commit records against manifest, card, file checksums, indices and every single member.

Commit records are the truth here: the rest of a dataset can be made again from them and the shards, as `shards.repair` does.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import xxhash

from shards.annotations import KIND, check_column
from shards.codec import HEADER_MEMBER, decode_record
from shards.column_check import check_learned_column
from shards.columns import COLUMN_CARD
from shards.errors import DamagedRecordError, DatasetError
from shards.foreign import check_foreign
from shards.index import ShardIndex, index_path, read_index, tar_path
from shards.manifest import (
    MANIFEST_PATH,
    ShardEntry,
    build_card,
    encode_card,
    encode_manifest,
    entries_of,
    manifest_digest,
    read_card,
    read_manifest,
    repeated_keys,
)
from shards.rejects import REJECTS_PATH, encode_rejects
from shards.storage import Storage
from shards.stores import open_storage
from shards.writer import CARD_PATH, UnitReport, commit_path, read_commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One thing that is not as it was committed."""

    shard: str  # name of the shard, or of the file of the dataset that is damaged
    key: str | None = None  # of the record, where one can be named
    what: str

    def __str__(self) -> str:
        return f"{self.shard}: {f'record {self.key!r}: ' if self.key else ''}{self.what}"


def verify(path: str | Path, *, on_shard: Callable[[ShardEntry], None] | None = None) -> list[Damage]:
    """Check everything that a dataset says about itself; reads every byte of it.

    Args:
        path: folder or address of the dataset.
        on_shard: called when a shard has been checked.

    Returns:
        What is damaged, shard by shard; empty for a sound dataset.

    Raises:
        DatasetError: there is no dataset at all.
    """
    storage = open_storage(path)
    commits, damages = read_commits(storage)
    if not commits and not damages and not storage.exists(CARD_PATH):
        raise DatasetError(f"{storage.url} is no dataset (it has neither commits nor a {CARD_PATH}); check the path")
    damages += _check_summary(storage, commits)
    for entry in entries_of(commits):
        damages += check_shard(storage, entry)
        if on_shard is not None:
            on_shard(entry)
    damages += _check_keys(storage, entries_of(commits))
    damages += _check_strays(storage, entries_of(commits))
    damages += _check_columns(storage, entries_of(commits))
    return damages


def check_shard(storage: Storage, entry: ShardEntry) -> list[Damage]:
    """Check one shard: file checksum, index, and each member against its own checksum, header and count."""
    damages: list[Damage] = []
    index: ShardIndex | None = None
    try:
        index = read_index(storage, entry.name, xxh3=entry.index_xxh3)
    except DatasetError as problem:
        damages.append(Damage(shard=entry.name, what=f"its index: {problem}"))
    remedy = f"remove {commit_path(entry.unit)} and run the same `shards` command again"
    try:
        sound = storage.checksum(tar_path(entry.name)) == entry.xxh3
        with storage.open_read(tar_path(entry.name)) as tar:
            members = list(_check_members(tar, entry, index)) if index is not None else []
            damages += members
            if not sound:
                place = "" if members else ", although no member is damaged" if index is not None else ""
                damages.append(Damage(shard=entry.name, what=f"the file does not match its checksum{place}; {remedy}"))
            elif index is not None:
                damages += _check_layout(tar, entry, index)
    except FileNotFoundError:
        damages.append(Damage(shard=entry.name, what=f"{tar_path(entry.name)} is missing; {remedy}"))
    if entry.foreign is not None and index is not None:
        damages += [Damage(shard=entry.name, key=key, what=what) for key, what in check_foreign(entry.foreign, index)]
    return damages


def _own_members(entry: ShardEntry, index: ShardIndex, row: int) -> list[tuple[str, int, int, int]]:
    """The members that lie in the shard itself; of a dataset indexed in place these are the headers."""
    members = index.members(row)
    return members if entry.foreign is None else [member for member in members if member[0] == HEADER_MEMBER]


def _check_keys(storage: Storage, entries: tuple[ShardEntry, ...]) -> Iterator[Damage]:
    """Look for records that lie in two shards, as far as the indices can be read."""
    readable = [entry for entry in entries if _keys(storage, entry) is not None]
    for key, first, second in repeated_keys(storage, readable):
        yield Damage(
            shard=second, key=key, what=f"it is in {first} too; a dataset holds a key once, so remove the output"
        )


def _check_strays(storage: Storage, entries: tuple[ShardEntry, ...]) -> Iterator[Damage]:
    """Look for shards and indices that no commit record vouches for; no reader follows them, but a person may."""
    known = {path(entry.name) for entry in entries for path in (tar_path, index_path)}
    for name in (*storage.list("shards"), *storage.list("index")):
        if name not in known and name.endswith((".tar", ".parquet")):
            yield Damage(shard=name, what="no commit record vouches for it; `verify repair=true` removes it")


def _keys(storage: Storage, entry: ShardEntry) -> list[str] | None:
    try:
        return read_index(storage, entry.name, xxh3=entry.index_xxh3).keys
    except DatasetError:
        return None  # said where the shard itself is checked


def _check_columns(storage: Storage, entries: tuple[ShardEntry, ...]) -> Iterator[Damage]:
    """Check what lies beside the shards: columns that were learned, and annotations attached from another dataset."""
    by_name = {entry.name: entry for entry in entries}
    shards = {entry.name: entry.index_xxh3 for entry in entries}
    for folder in storage.folders("sidecars"):
        if not storage.list(folder):
            continue  # what a killed job left before its first file
        try:
            card = json.loads(storage.read(f"{folder}/{COLUMN_CARD}"))
        except (FileNotFoundError, ValueError) as problem:
            yield Damage(
                shard=f"{folder}/{COLUMN_CARD}", what=f"it is missing or damaged ({problem}); make the column again"
            )
            continue
        if isinstance(card, dict) and card.get("kind") == KIND:
            found = check_column(storage, folder, shards=shards, manifest_digest=manifest_digest(entries))
        else:
            found = check_learned_column(
                storage, folder, shards=list(by_name), keys=lambda name: _keys(storage, by_name[name])
            )
        yield from (Damage(shard=file, key=key, what=what) for file, key, what in found)


def _check_members(tar: BinaryIO, entry: ShardEntry, index: ShardIndex) -> Iterator[Damage]:
    if len(index) != entry.records:
        yield Damage(shard=entry.name, what=f"its index has {len(index)} rows, its commit record {entry.records}")
    for row, key in enumerate(index.keys):
        members: dict[str, bytes] = {}
        for extension, offset, size, xxh3 in _own_members(entry, index, row):
            tar.seek(offset)
            data = tar.read(size)
            if xxhash.xxh3_64_intdigest(data) != xxh3:
                yield Damage(shard=entry.name, key=key, what=f"its {extension!r} member does not match its checksum")
                break
            members[extension] = data
        else:
            yield from _check_record(entry, index, row, members)


def _check_record(entry: ShardEntry, index: ShardIndex, row: int, members: dict[str, bytes]) -> Iterator[Damage]:
    key = index.keys[row]
    try:
        record = decode_record(key, members)
    except DamagedRecordError as problem:
        yield Damage(shard=entry.name, key=key, what=str(problem))
        return
    counted = int(index.annotations[row])
    if len(record.annotations) != counted:
        what = f"it has {len(record.annotations)} annotations, and the index says {counted}"
        yield Damage(shard=entry.name, key=key, what=what)


def _check_layout(tar: BinaryIO, entry: ShardEntry, index: ShardIndex) -> Iterator[Damage]:
    """Walk the tar as any other reader would, and compare with where the index says that members are."""
    tar.seek(0)
    walked: set[tuple[str, int, int]] = set()
    try:
        with tarfile.open(fileobj=tar, mode="r:") as archive:
            walked.update((member.name, member.offset_data, member.size) for member in archive)
    except tarfile.TarError as problem:
        yield Damage(shard=entry.name, what=f"{tar_path(entry.name)} is no tar ({problem})")
        return
    for row, key in enumerate(index.keys):
        for extension, offset, size, _ in _own_members(entry, index, row):
            place = (f"{key}.{extension}", offset, size)
            if place not in walked:
                yield Damage(
                    shard=entry.name, key=key, what=f"the tar has no member {extension!r} where the index says"
                )
            walked.discard(place)
    if walked:
        yield Damage(
            shard=entry.name, what=f"the tar holds {len(walked)} members that the index lacks ({min(walked)[0]})"
        )


def read_commits(storage: Storage) -> tuple[list[UnitReport], list[Damage]]:
    """All commit records that can be read, in the order of their units, and what is wrong with the others."""
    reports: list[UnitReport] = []
    damages: list[Damage] = []
    for path in storage.list("commits"):
        try:
            report = read_commit(storage, path.removeprefix("commits/").removesuffix(".json"))
            if report is not None:
                report.check_ledger()
                reports.append(report)
        except DatasetError as problem:
            damages.append(Damage(shard=path, what=str(problem)))
    return sorted(reports, key=lambda report: report.index), damages


def _check_summary(storage: Storage, commits: list[UnitReport]) -> list[Damage]:
    """Compare card, manifest and rejects with what the commit records say they must be."""
    damages: list[Damage] = []
    entries = entries_of(commits)
    remedy = "run `verify repair=true`"
    try:
        listed = read_manifest(storage)
    except DatasetError as problem:
        damages.append(Damage(shard=MANIFEST_PATH, what=str(problem)))
    else:
        found = list(_compare_entries(listed, entries))
        if not found and storage.read(MANIFEST_PATH) != encode_manifest(entries):
            found.append(Damage(shard=MANIFEST_PATH, what=f"some of its bytes are not what a merge writes; {remedy}"))
        damages += found
    try:
        card = read_card(storage)
    except DatasetError as problem:
        return [*damages, Damage(shard=CARD_PATH, what=str(problem))]
    try:
        made = build_card(
            commits, name=card.name, split=card.split, config=card.config, config_digest=card.config_digest
        )
    except DatasetError as problem:
        return [*damages, Damage(shard="commits", what=str(problem))]
    if storage.read(CARD_PATH) != encode_card(card):
        damages.append(Damage(shard=CARD_PATH, what=f"it does not match its own checksum; {remedy}"))
    if card != made:
        damages.append(Damage(shard=CARD_PATH, what=f"it does not sum up the commit records; {remedy}"))
    for report in commits:
        if report.config_digest != card.config_digest:
            what = f"made by the config {report.config_digest}, the dataset by {card.config_digest}"
            damages.append(Damage(shard=commit_path(report.unit), what=what))
    if not storage.exists(REJECTS_PATH) or storage.read(REJECTS_PATH) != encode_rejects(commits):
        damages.append(Damage(shard=REJECTS_PATH, what=f"it does not list the rejects of the commit records; {remedy}"))
    return damages


def _compare_entries(listed: tuple[ShardEntry, ...], committed: tuple[ShardEntry, ...]) -> Iterator[Damage]:
    truth = {entry.name: entry for entry in committed}
    seen = {entry.name: entry for entry in listed}
    if sorted(entry.name for entry in listed) == sorted(truth) and listed != committed:
        order = [entry.name for entry in listed] != [entry.name for entry in committed]
        if order:
            yield Damage(shard=MANIFEST_PATH, what="it lists the shards in another order; run `verify repair=true`")
    for name, times in Counter(entry.name for entry in listed).items():
        if times > 1:
            yield Damage(shard=name, what=f"the manifest lists it {times} times; run `verify repair=true`")
    for name in sorted(seen.keys() | truth.keys()):
        if name not in truth:
            what = f"the manifest lists it, but {commit_path(seen[name].unit)} is missing; run the same `shards` command again"
            yield Damage(shard=name, what=what)
        elif name not in seen:
            yield Damage(
                shard=name, what="it is committed, but the manifest does not list it; run `verify repair=true`"
            )
        elif seen[name] != truth[name]:
            yield Damage(shard=name, what="manifest and commit record disagree about it; run `verify repair=true`")
