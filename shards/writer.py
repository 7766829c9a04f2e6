"""Writing one unit as one shard, exactly once: stream to temporary names, publish, then the commit record that alone proves it.

Whoever creates the commit record first has written the unit. Everyone else (a retry, a racing worker, a second identical job)
finds the record, checks that the bytes agree, and leaves. An attempt that dies at any point leaves at most a temporary or an
uncommitted file, which no reader follows and the next attempt of the same unit overwrites.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import BinaryIO, Literal, Self

import xxhash
from xxhash import xxh3_64_intdigest

from shards.codec import BLOCK, HEADER_MEMBER, TAR_END, encode_record, tar_header
from shards.config import canonical_json, digest
from shards.errors import DatasetError
from shards.foreign import ForeignTar
from shards.index import IndexRow, Member, encode_index, index_path, index_row, shard_name, tar_path
from shards.plain import PlainError, from_plain, to_plain
from shards.records import Record, Reject
from shards.storage import Storage, temporary_name

SCHEMA = 1
CARD_PATH = "dataset.json"
_JOINED_BYTES = 1 << 14  # copying less than this costs less than a write of its own
_WAITING_PIECES = 64
_ZEROS = bytes(BLOCK)
_TAR_RECORD = 20 * BLOCK  # tar files are padded to this, as `tar` does


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitReport:
    """What became of one unit; stored as its commit record, so it holds nothing that depends on the attempt."""

    unit: str  # hash of the unit's input and the config
    index: int
    shard: str | None = None  # without suffix; None where every raw item was rejected
    records: int
    annotations: int
    bytes: int  # of the tar
    xxh3: str | None = None  # of the tar
    index_xxh3: str | None = None  # of the index file
    raw_items: int
    raw_annotations: int
    rejects: tuple[Reject, ...]
    config_digest: str
    annotation_types: Mapping[str, int]  # records by the type of their annotations
    media_kinds: Mapping[str, int]  # media items by kind
    licences: Mapping[str, int]  # records by licence, where the raw dataset says
    foreign: ForeignTar | None = None  # somebody else's tar that holds the media; the shard then holds headers only
    retried: tuple[str, ...] | None = None  # raw ids of rejects of earlier units, which this unit has tried again
    committed: bool = field(
        default=True, compare=False, metadata={"stored": False}
    )  # False: another attempt had been first

    def check_ledger(self) -> None:
        """Account for every raw item and annotation: in a record or in a named reject.

        Raises:
            DatasetError: they do not add up.
        """
        items = [reject for reject in self.rejects if reject.level == "item"]
        named = len(self.rejects) - len(items)
        lost = sum(reject.annotations for reject in items)
        if self.raw_items != self.records + len(items):
            raise DatasetError(
                f"unit {self.unit}: {self.raw_items} raw items went in, but {self.records} records and {len(items)} rejects "
                "came out; the source must yield exactly one of them per item"
            )
        if self.raw_annotations != self.annotations + named + lost:
            raise DatasetError(
                f"unit {self.unit}: {self.raw_annotations} raw annotations went in, but {self.annotations} were written, "
                f"{named} rejected and {lost} lost with their item; the source must account for every one"
            )


def commit_path(unit: str) -> str:
    """Where the commit record of a unit lies in its dataset."""
    return f"commits/{unit}.json"


def encode_commit(report: UnitReport) -> bytes:
    """The bytes of a commit record, the same for every attempt of the unit; they carry their own checksum."""
    fields = {"schema": SCHEMA, **to_plain(report)}
    return canonical_json({**fields, "checksum": digest(fields)})


def decode_commit(data: bytes, *, where: str) -> UnitReport:
    """Read the bytes of a commit record. Raises `DatasetError` naming `where` for anything else."""
    try:
        fields = json.loads(data)
        if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
            raise PlainError(f" is not of schema {SCHEMA}")
        if fields.pop("checksum", None) != digest(fields):
            raise PlainError("does not match its own checksum")
        del fields["schema"]
        report = from_plain(UnitReport, fields)
        if bool(report.records) != bool(report.shard and report.xxh3 and report.index_xxh3):
            raise PlainError(" does not name a shard with checksums for its records")
    except ValueError as problem:
        raise DatasetError(
            f"{where} is no commit record ({str(problem).strip()}); remove it and run the same `shards` command again"
        ) from problem
    return report


def read_commit(storage: Storage, unit: str) -> UnitReport | None:
    """The commit record of a unit, or None where the unit is not committed. Raises `DatasetError` for a damaged one."""
    path = commit_path(unit)
    try:
        data = storage.read(path)
    except FileNotFoundError:
        return None
    report = decode_commit(data, where=storage.path(path))
    if report.unit != unit:
        own = commit_path(report.unit)
        raise DatasetError(
            f"{storage.path(path)} is the commit record of unit {report.unit}; rename it to {own}, or remove it where that is there"
        )
    return report


def committed_units(
    storage: Storage, config_digest: str | None = None, *, rejects: Literal["read", "left_out"] = "read"
) -> dict[str, UnitReport]:
    """All commit records of a dataset, by unit.

    Args:
        storage: the dataset.
        config_digest: the config at hand; where given, a folder that another config has written into is refused.
        rejects: `left_out`: without the rejects, which may be more than fit into memory; see `with_rejects`.

    Raises:
        DatasetError: a commit record is damaged, or made by another config.
    """
    reports = {}
    for path in storage.list("commits"):
        unit = path.removeprefix("commits/").removesuffix(".json")
        report = read_commit(storage, unit)
        if report is None:
            continue
        if config_digest is not None:
            _refuse_other_config(storage, found=report.config_digest, wanted=config_digest)
        reports[unit] = report if rejects == "read" else replace(report, rejects=())
    if config_digest is not None and storage.exists(CARD_PATH):
        _refuse_other_config(storage, found=_card_digest(storage), wanted=config_digest)
    return reports


def with_rejects(storage: Storage, reports: Iterable[UnitReport]) -> Iterator[UnitReport]:
    """Read the rejects of commit records that come without them, one unit at a time; their ledgers are checked on the way.

    Raises:
        DatasetError: a ledger does not close, or a commit record is damaged or gone.
    """
    for slim in reports:
        report = slim
        if (slim.raw_items, slim.raw_annotations) != (
            slim.records,
            slim.annotations,
        ):  # else there was nothing to reject
            found = read_commit(storage, slim.unit)
            if found is None:
                raise DatasetError(
                    f"{storage.path(commit_path(slim.unit))} has gone; run the same `shards` command again"
                )
            report = found
        report.check_ledger()
        yield report


class ShardWriter:
    """Writes the records of one unit.

    Use as a context manager: leaving without `commit` removes everything that this attempt has written.
    """

    def __init__(
        self, storage: Storage, *, dataset: str, split: str, unit: str, unit_index: int, config_digest: str
    ) -> None:
        self._storage = storage
        self._name = shard_name(dataset, split, unit_index)
        self._unit = unit
        self._unit_index = unit_index
        self._config_digest = config_digest
        self._tar: BinaryIO | None = None
        self._temporaries: list[str] = []
        self._waiting: list[bytes] = []  # what is to be written next
        self._hash = xxhash.xxh3_64()
        self._offset = 0  # behind all that is written or waits
        self._rows: list[IndexRow] = []
        self._keys: set[str] = set()
        self._rejects: list[Reject] = []
        self._annotation_types: Counter[str] = Counter()
        self._media_kinds: Counter[str] = Counter()
        self._licences: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def add(self, record: Record, *, elsewhere: Sequence[Member] | None = None) -> None:
        """Append a record; the shard keeps the order of the calls.

        Args:
            record: with the bytes of its media.
            elsewhere: where these bytes lie in the foreign tar that this shard is about; given, only the header is written here.

        Raises:
            DatasetError: the key occurs twice, the record breaks the format, or the storage does not take the bytes.
        """
        key = record.key
        if key in self._keys:
            raise DatasetError(f"{self._name}: the key {key!r} occurs twice; the source must reject duplicate ids")
        encoded = encode_record(record)
        try:
            members = self._append(
                key, encoded if elsewhere is None else [member for member in encoded if member[0] == HEADER_MEMBER]
            )
        except OSError as problem:
            raise self._unwritable(problem) from problem
        self._keys.add(key)
        self._rows.append(index_row(record, members if elsewhere is None else [*members, *elsewhere]))
        # One by one: `Counter.update` has more to find out than there is to count.
        for media in record.media:
            self._media_kinds[media.kind] += 1
        if record.annotations:
            self._annotation_types[record.annotations[0].type] += 1
        if record.origin.licence:
            self._licences[record.origin.licence] += 1

    def reject(self, reject: Reject) -> None:
        """Note a raw item, or one of its annotations, that did not become part of a record."""
        # Raw ids and details may hold anything, even broken text; the ledger must be writable all the same.
        item = None if reject.item is None else _printable(reject.item)
        self._rejects.append(replace(reject, id=_printable(reject.id), detail=_printable(reject.detail), item=item))

    def commit(
        self,
        *,
        raw_items: int,
        raw_annotations: int,
        foreign: ForeignTar | None = None,
        retried: Sequence[str] | None = None,
    ) -> UnitReport:
        """Publish the shard and its index, then the commit record.

        Args:
            raw_items: how many raw items the unit holds.
            raw_annotations: how many raw annotations these items hold.
            foreign: the tar that holds the media of records added with `elsewhere`.
            retried: the raw ids of the unit's items, where these are rejects of earlier units.

        Returns:
            The report, with `committed` False where another attempt had committed the same bytes before.

        Raises:
            DatasetError: the ledger does not close, the unit was committed with other bytes, or the storage failed.
        """
        try:
            again = None if retried is None else tuple(map(_printable, retried))
            report = replace(self._finish(raw_items, raw_annotations), foreign=foreign, retried=again)
            report.check_ledger()
            first = read_commit(self._storage, self._unit)
            if first is None:
                first = self._publish(report)
        except OSError as problem:
            raise self._unwritable(problem) from problem
        finally:
            self.abort()
        if first is None:
            return report
        if first != report:
            raise DatasetError(
                f"{self._storage.path(commit_path(self._unit))}: the unit was committed before with other bytes "
                f"({first.xxh3} and now {report.xxh3}); the raw files changed or the source is not deterministic"
            )
        return replace(report, committed=False)

    def abort(self) -> None:
        """Remove what this attempt has written and not published."""
        # A full disk fails here again, while the first failure is on its way up; what stays behind is harmless.
        with contextlib.suppress(OSError):
            if self._tar is not None:
                self._tar.close()
        self._tar = None
        for temporary in self._temporaries:
            with contextlib.suppress(OSError):
                self._storage.remove(temporary)
        self._temporaries.clear()

    def _append(self, key: str, encoded: Sequence[tuple[str, bytes]]) -> list[Member]:
        """Put the files of one record behind what is there; says where each of them lies."""
        members = []
        waiting, offset = self._waiting, self._offset
        for extension, data in encoded:
            size = len(data)
            header = tar_header(f"{key}.{extension}", size)
            offset += len(header)
            members.append(Member(extension, offset, size, xxh3_64_intdigest(data)))
            fill = -size % BLOCK
            offset += size + fill
            if size < _JOINED_BYTES:
                waiting += (header, data, _ZEROS[:fill])
            else:
                waiting.append(header)
                self._flush()
                self._write(data)
                waiting.append(_ZEROS[:fill])
        self._offset = offset
        if len(waiting) > _WAITING_PIECES:
            self._flush()
        return members

    def _flush(self) -> None:
        """Write the small pieces that wait; together, because each write and each hash has its price."""
        self._write(b"".join(self._waiting))
        self._waiting.clear()

    def _write(self, data: bytes) -> None:
        if self._tar is None:
            self._tar = self._storage.open_write(self._temporary(tar_path(self._name)))
        self._tar.write(data)
        self._hash.update(data)

    def _finish(self, raw_items: int, raw_annotations: int) -> UnitReport:
        """End the tar, write the index beside it, and say what both hold."""
        shard = xxh3 = index_xxh3 = None
        if self._rows:
            end = TAR_END + bytes(-(self._offset + len(TAR_END)) % _TAR_RECORD)
            self._waiting.append(end)
            self._flush()
            self._offset += len(end)
            assert self._tar is not None
            self._tar.close()
            self._tar = None
            index = encode_index(self._rows)
            with self._storage.open_write(self._temporary(index_path(self._name))) as handle:
                handle.write(index)
            shard, xxh3, index_xxh3 = self._name, self._hash.hexdigest(), xxhash.xxh3_64_hexdigest(index)
        return UnitReport(
            unit=self._unit,
            index=self._unit_index,
            shard=shard,
            records=len(self._rows),
            annotations=sum(row.annotations for row in self._rows),
            bytes=self._offset,
            xxh3=xxh3,
            index_xxh3=index_xxh3,
            raw_items=raw_items,
            raw_annotations=raw_annotations,
            rejects=tuple(self._rejects),
            config_digest=self._config_digest,
            annotation_types=dict(self._annotation_types),
            media_kinds=dict(self._media_kinds),
            licences=dict(self._licences),
        )

    def _publish(self, report: UnitReport) -> UnitReport | None:
        """Make the files visible and create the commit record; the record of the winner where that is another attempt."""
        if report.xxh3 and report.index_xxh3:
            tar, index = self._temporaries
            try:
                self._place(tar, tar_path(self._name), report.xxh3)
                self._place(index, index_path(self._name), report.index_xxh3)
            except FileNotFoundError:
                # A merge sweeps the temporaries of attempts that lost; then the winner's record is there.
                winner = read_commit(self._storage, self._unit)
                if winner is None:
                    raise
                return winner
        if self._storage.create(commit_path(self._unit), encode_commit(report)):
            return None
        return read_commit(self._storage, self._unit)

    def _place(self, temporary: str, name: str, xxh3: str) -> None:
        """Publish one file. A file in its place is kept if it is the same, and replaced if no commit record vouches for it."""
        if self._storage.publish(temporary, name):
            return
        owner = next(
            (
                unit
                for unit, found in committed_units(self._storage, rejects="left_out").items()
                if found.shard == self._name
            ),
            None,
        )
        if owner == self._unit:
            return  # lost the race in this moment; `commit` compares the reports
        if owner is not None:
            raise DatasetError(
                f"{self._storage.path(name)} was committed by unit {owner}, which another config or other raw files made; "
                "choose another `output`"
            )
        if self._storage.checksum(name) != xxh3:
            self._storage.publish(temporary, name, existing="replace")

    def _temporary(self, name: str) -> str:
        temporary = temporary_name(name)
        self._temporaries.append(temporary)
        return temporary

    def _unwritable(self, problem: OSError) -> DatasetError:
        return DatasetError(
            f"{self._storage.url}: cannot write {self._name} ({problem.strerror or problem}); "
            "mend that and run the same command again, committed units are kept"
        )


def summed(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Add counts by name; names in order."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _card_digest(storage: Storage) -> str:
    try:
        return str(json.loads(storage.read(CARD_PATH))["config_digest"])
    except (ValueError, KeyError, TypeError) as problem:
        raise DatasetError(f"{storage.path(CARD_PATH)} is damaged ({problem}); run `verify repair=true`") from problem


def _refuse_other_config(storage: Storage, *, found: str, wanted: str) -> None:
    if found != wanted:
        raise DatasetError(
            f"{storage.url} was written by another config (digest {found}, yours is {wanted}); "
            "choose another `output`, or run with the settings in its dataset.json"
        )


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
