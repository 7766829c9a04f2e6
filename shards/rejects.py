"""The ledger of what did not become a record: which rejects still count, and the one file that lists them all.

A dataset may have more rejects than records (a filter keeps the best tenth of a web crawl), so they are read from the commit
records one unit at a time and never held all at once.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import DatasetError
from shards.plain import to_plain
from shards.records import Reject, RejectReason
from shards.storage import Storage
from shards.writer import UnitReport, with_rejects

REJECTS_PATH = "rejects.parquet"
FINAL_REASONS: frozenset[RejectReason] = frozenset({"filtered", "duplicate", "duplicate_id"})
"""Items rejected for these are meant to be rejected, so `retry=rejects` leaves them alone."""

_SCHEMA = pa.schema(
    [
        pa.field("unit", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("level", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("annotations", pa.int64(), nullable=False),
        pa.field("item", pa.string()),
    ]
)
_ROWS_AT_ONCE = 1 << 20  # of a row group, as pyarrow cuts a whole table


def settle(reports: Sequence[UnitReport], *, storage: Storage | None = None) -> Iterator[UnitReport]:
    """Let the later outcome alone count where an item was rejected by one unit and tried again by another.

    Args:
        reports: the commit records of a dataset, in the order of their units.
        storage: the dataset, where `reports` come without their rejects; these are then read one unit at a time.

    Yields:
        The same records, without the items and rejects of earlier units that later ones have tried again.

    Raises:
        DatasetError: a unit says that it tried an item again which no earlier unit has rejected, or the ledger does not close.
    """
    last_tried = {id: report.index for report in reports for id in report.retried or ()}
    rejected: set[str] = set()  # of the ids that are tried again: those that wait for it
    for report in reports if storage is None else with_rejects(storage, reports):
        again = set(report.retried or ())
        if again - rejected:
            raise DatasetError(
                f"the item {min(again - rejected)!r} was tried again, but no earlier unit has rejected it; its commit record is "
                "lost or not of this dataset"
            )
        rejected -= again
        gone = [reject for reject in report.rejects if last_tried.get(_item_of(reject) or "", -1) > report.index]
        if not gone:
            yield report
            continue
        items = {reject.id for reject in gone if reject.level == "item"}
        rejected |= items
        annotations = sum(reject.annotations if reject.level == "item" else 1 for reject in gone)
        settled = replace(
            report,
            rejects=tuple([reject for reject in report.rejects if reject not in gone]),
            raw_items=report.raw_items - len(items),
            raw_annotations=report.raw_annotations - annotations,
        )
        settled.check_ledger()
        yield settled


def encode_rejects(reports: Sequence[UnitReport]) -> bytes:
    """The bytes of `rejects.parquet`: every raw item and annotation that is in no record, and why."""
    sink = io.BytesIO()
    write_rejects(sink, settle(reports))
    return sink.getvalue()


def write_rejects(sink: IO[bytes], settled: Iterable[UnitReport]) -> None:
    """Write `rejects.parquet`, the same bytes for the same reports, of which it holds one at a time.

    Args:
        sink: open for writing.
        settled: what `settle` yields.
    """
    with pq.ParquetWriter(sink, _SCHEMA, compression="zstd", write_page_checksum=True) as writer:
        waiting: list[pa.Table] = [_SCHEMA.empty_table()]
        rows = groups = 0
        for report in settled:
            if not report.rejects:
                continue
            plain = [{"unit": report.unit, **to_plain(reject)} for reject in report.rejects]
            waiting.append(pa.Table.from_pylist(plain, schema=_SCHEMA))
            rows += len(plain)
            while rows >= _ROWS_AT_ONCE:
                table = pa.concat_tables(waiting)
                writer.write_table(table.slice(0, _ROWS_AT_ONCE).combine_chunks())
                waiting, rows, groups = [table.slice(_ROWS_AT_ONCE)], rows - _ROWS_AT_ONCE, groups + 1
        if rows or not groups:
            writer.write_table(pa.concat_tables(waiting).combine_chunks())


def _item_of(reject: Reject) -> str | None:
    """The raw id of the item that a mendable reject is about; None where trying again is pointless, so nobody did."""
    if reject.level == "annotation":
        return reject.item
    return None if reject.reason in FINAL_REASONS else reject.id
