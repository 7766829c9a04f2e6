"""Making a dataset whole again out of what is left of it: each part is stored in a way that the others can restore.

Manifest, rejects and card follow from the commit records; a commit record follows from manifest, rejects and shard; an index
follows from its shard. Nothing is written unless its checksum says that it is what was lost. What only the raw data can bring
back (the bytes of a shard) is handed to whoever can convert its unit again.
"""

from __future__ import annotations

import logging
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import xxhash

from shards.codec import decode_record
from shards.config import digest
from shards.errors import DamagedRecordError, DatasetError
from shards.index import IndexRow, Member, decode_parquet, encode_index, index_path, index_row, tar_path
from shards.manifest import (
    Card,
    ShardEntry,
    build_card,
    encode_card,
    entries_of,
    merge,
    read_card,
    read_manifest,
)
from shards.plain import PlainError, from_plain
from shards.records import Record, Reject
from shards.rejects import REJECTS_PATH
from shards.storage import Storage
from shards.verify import read_commits
from shards.writer import CARD_PATH, UnitReport, commit_path, encode_commit

logger = logging.getLogger(__name__)

Reconvert = Callable[[Sequence[UnitReport]], None]


def repair(storage: Storage, *, reconvert: Reconvert | None = None) -> Card:
    """Restore what can be restored, and sweep what killed attempts have left.

    Temporaries of columns are swept here too (a merge leaves them, because a job may be making a column), so let no such job
    run meanwhile.

    Args:
        storage: the dataset.
        reconvert: writes the shards of units again whose bytes are damaged; None where there is no raw data at hand.

    Raises:
        DatasetError: the card is lost, the commit records cannot be restored, or a shard is missing or cut and stays so.
    """
    card = _trusted_card(storage)
    commits = _whole_commits(storage, card)
    for entry in entries_of(commits):
        _restore_index(storage, entry)
    damaged = [report for report in commits if report.shard is not None and not _is_whole(storage, report)]
    if damaged and reconvert is not None:
        reconvert(damaged)
        damaged = [report for report in damaged if not _is_whole(storage, report)]
    if damaged:
        logger.warning(
            "%s: %d shards are damaged (the first is %s), and only the raw data can bring them back; say where they are, "
            "as in source.annotations=… source.media=…, to convert just these units again",
            storage.url,
            len(damaged),
            damaged[0].shard,
        )
    for folder in storage.folders("sidecars"):
        for temporary in storage.temporaries(folder):
            storage.remove(temporary)
    return merge(
        storage,
        name=card.name,
        split=card.split,
        config=card.config,
        config_digest=card.config_digest,
        expected_units=[report.unit for report in commits],
    )


def _trusted_card(storage: Storage) -> Card:
    """The card, as far as it says what nothing else does: the config, the name and the split. Raises `DatasetError`."""
    card = read_card(storage)
    config = card.config
    proven = digest(config) == card.config_digest and (config.get("name"), config.get("split")) == (
        card.name,
        card.split,
    )
    if not proven and storage.read(CARD_PATH) != encode_card(card):
        raise DatasetError(
            f"{storage.path(CARD_PATH)} does not match its own checksum, so its config cannot be trusted and nothing was "
            "changed; run the same `shards` command again"
        )
    return card


def _is_whole(storage: Storage, report: UnitReport) -> bool:
    assert report.shard is not None
    return all(
        _checksum(storage, path) == xxh3
        for path, xxh3 in ((tar_path(report.shard), report.xxh3), (index_path(report.shard), report.index_xxh3))
    )


def _checksum(storage: Storage, path: str) -> str | None:
    try:
        return storage.checksum(path)
    except FileNotFoundError:
        return None


def _whole_commits(storage: Storage, card: Card) -> list[UnitReport]:
    """The commit records of the dataset that the card names; those that are lost are made again from everything else."""
    commits, damages = read_commits(storage)
    if not damages and _adds_up(commits, card):
        return commits
    there = {report.unit for report in commits}
    try:
        rejects = _rejects_by_unit(storage)
        lost = [entry for entry in read_manifest(storage) if entry.unit not in there]
        restored = [_restored(storage, entry, rejects[entry.unit]) for entry in lost]
    except (DatasetError, DamagedRecordError, OSError) as problem:
        raise _beyond_repair(storage, str(damages[0] if damages else problem)) from problem
    whole = sorted([*commits, *restored], key=lambda report: report.index)
    if not _adds_up(whole, card):
        raise _beyond_repair(storage, str(damages[0]) if damages else "together they are not what the card says")
    for report in restored:
        storage.replace(commit_path(report.unit), encode_commit(report))
    return whole


def _adds_up(commits: Sequence[UnitReport], card: Card) -> bool:
    try:
        made = build_card(
            commits, name=card.name, split=card.split, config=card.config, config_digest=card.config_digest
        )
    except DatasetError:
        return False
    # A card with a wrong sum still tells whether all units are there.
    return made == card or (made.units, made.manifest_digest) == (card.units, card.manifest_digest)


def _beyond_repair(storage: Storage, why: str) -> DatasetError:
    return DatasetError(
        f"{storage.url}: its commit records are not all there and cannot be restored ({why}), so nothing was changed; "
        "run the same `shards` command again"
    )


def _rejects_by_unit(storage: Storage) -> defaultdict[str, list[Reject]]:
    try:
        rows = decode_parquet(storage.read(REJECTS_PATH), check_pages=True).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as problem:
        raise DatasetError(f"{storage.path(REJECTS_PATH)} is missing or damaged ({problem})") from problem
    found: defaultdict[str, list[Reject]] = defaultdict(list)
    for row in rows:
        unit = row.pop("unit")
        try:
            found[unit].append(from_plain(Reject, {name: value for name, value in row.items() if value is not None}))
        except PlainError as problem:
            raise DatasetError(f"{storage.path(REJECTS_PATH)} is damaged (it{problem})") from problem
    return found


def _restored(storage: Storage, entry: ShardEntry, rejects: Sequence[Reject]) -> UnitReport:
    """The commit record of a unit, from its line in the manifest, its rejects and its shard. Raises `DatasetError`."""
    if _checksum(storage, tar_path(entry.name)) != entry.xxh3:
        raise DatasetError(f"{storage.path(tar_path(entry.name))} is damaged as well")
    kinds: Counter[str] = Counter()
    types: Counter[str] = Counter()
    licences: Counter[str] = Counter()
    for record, _ in _walk(storage, entry.name):
        kinds.update(media.kind for media in record.media)
        types.update({annotation.type for annotation in record.annotations})
        licences.update([record.origin.licence] if record.origin.licence else [])
    items = [reject for reject in rejects if reject.level == "item"]
    return UnitReport(
        unit=entry.unit,
        index=entry.index,
        shard=entry.name,
        records=entry.records,
        annotations=entry.annotations,
        bytes=entry.bytes,
        xxh3=entry.xxh3,
        index_xxh3=entry.index_xxh3,
        raw_items=entry.records + len(items),
        raw_annotations=entry.annotations + sum(reject.annotations for reject in items) + len(rejects) - len(items),
        rejects=tuple(rejects),
        config_digest=entry.config_digest,
        annotation_types=dict(types),
        media_kinds=dict(kinds),
        licences=dict(licences),
        foreign=entry.foreign,
    )


def _restore_index(storage: Storage, entry: ShardEntry) -> None:
    """Make a lost index again from its shard, if the shard is whole and the result is what was lost."""
    path = index_path(entry.name)
    if _checksum(storage, path) == entry.index_xxh3 or _checksum(storage, tar_path(entry.name)) != entry.xxh3:
        return
    if entry.foreign is not None:
        return  # its media lie in a tar that only the `index` verb walks
    try:
        data = encode_index([row for _, row in _walk(storage, entry.name)])
    except DamagedRecordError:
        return
    if xxhash.xxh3_64_hexdigest(data) == entry.index_xxh3:
        storage.replace(path, data)


def _walk(storage: Storage, name: str) -> Iterator[tuple[Record, IndexRow]]:
    """The records of a shard and their rows of the index, read from the tar alone."""
    key = ""
    members: list[Member] = []
    payload: dict[str, bytes] = {}
    with storage.open_read(tar_path(name)) as handle, tarfile.open(fileobj=handle, mode="r:") as archive:
        for info in archive:
            owner, _, extension = info.name.partition(".")
            if owner != key and members:
                yield _row(key, members, payload)
                members, payload = [], {}
            key = owner
            stream = archive.extractfile(info)
            data = stream.read() if stream is not None else b""
            payload[extension] = data
            xxh3 = xxhash.xxh3_64_intdigest(data)
            members.append(Member(extension=extension, offset=info.offset_data, size=info.size, xxh3=xxh3))
    if members:
        yield _row(key, members, payload)


def _row(key: str, members: Sequence[Member], payload: dict[str, bytes]) -> tuple[Record, IndexRow]:
    record = decode_record(key, payload)
    return record, index_row(record, members)
