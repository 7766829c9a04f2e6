"""The list of rejects: complete, the same bytes however it is made, and never held in memory as a whole."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards import rejects as module
from shards.errors import DatasetError
from shards.manifest import merge
from shards.plain import to_plain
from shards.records import Reject, RejectReason
from shards.rejects import REJECTS_PATH, encode_rejects, settle, write_rejects
from shards.storage import Storage
from shards.stores import open_storage
from shards.writer import ShardWriter, UnitReport


def _report(index: int, *, rejects: dict[str, str] | None = None, retried: tuple[str, ...] | None = None) -> UnitReport:
    named = tuple(Reject(id=id, reason=cast(RejectReason, why), detail="x") for id, why in (rejects or {}).items())
    return UnitReport(
        unit=f"unit{index}", index=index, records=0, annotations=0, bytes=0, raw_items=len(named), raw_annotations=0,
        rejects=named, config_digest="c0ffee", annotation_types={}, media_kinds={}, licences={}, retried=retried,
    )  # fmt: skip


def test_of_an_item_tried_again_and_again_only_the_last_outcome_counts() -> None:
    reports = [
        _report(0, rejects={"a": "missing_media", "b": "missing_media", "c": "filtered"}),
        _report(1, rejects={"a": "truncated_media"}, retried=("a", "b")),
        _report(2, rejects={"a": "not_media"}, retried=("a",)),
    ]
    settled = [[(reject.id, reject.reason) for reject in report.rejects] for report in settle(reports)]
    assert settled == [[("c", "filtered")], [], [("a", "not_media")]]


@pytest.mark.parametrize("tries", [(("z",),), (("a",), ("b",)), (("a",), ("a",))])
def test_what_no_unit_before_has_rejected_cannot_have_been_tried_again(tries: tuple[tuple[str, ...], ...]) -> None:
    reports = [
        _report(0, rejects={"a": "missing_media"}),
        *(_report(number, retried=ids) for number, ids in enumerate(tries, start=1)),
        _report(len(tries) + 1, rejects={"z": "missing_media"}),
    ]
    with pytest.raises(DatasetError, match="no earlier unit has rejected"):
        list(settle(reports))


@pytest.mark.parametrize("rows", [0, 1, 9, 10, 11, 47])
def test_the_file_is_what_pyarrow_writes_of_the_whole_table(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 10)
    ids = [str(number) for number in range(rows)]
    reports = [_report(k, rejects=dict.fromkeys(ids[7 * k : 7 * k + 7], "not_media")) for k in range(rows // 7 + 2)]
    streamed, whole = io.BytesIO(), io.BytesIO()
    write_rejects(streamed, iter(reports))
    plain = [{"unit": report.unit, **to_plain(reject)} for report in reports for reject in report.rejects]
    table = pa.Table.from_pylist(plain, schema=pq.read_schema(io.BytesIO(streamed.getvalue())))
    pq.write_table(table, whole, compression="zstd", write_page_checksum=True, row_group_size=10)
    assert streamed.getvalue() == whole.getvalue() == encode_rejects(reports)


def _committed(storage: Storage, *, units: int, rejects: int) -> list[str]:
    names = [f"unit{index}" for index in range(units)]
    for index, unit in enumerate(names):
        with ShardWriter(
            storage, dataset="d", split="s", unit=unit, unit_index=index, config_digest="c0ffee"
        ) as writer:
            for number in range(rejects):
                writer.reject(Reject(id=f"{unit}-{number}", reason="filtered", detail="too small for any use"))
            writer.commit(raw_items=rejects, raw_annotations=0)
    return names


def test_a_merge_of_many_rejects_needs_the_memory_of_one_units(tmp_path: Path) -> None:
    peaks = []
    for units in (2, 30):
        storage = open_storage(tmp_path / str(units))
        names = _committed(storage, units=units, rejects=400)
        tracemalloc.start()
        card = merge(storage, name="d", split="s", config={}, config_digest="c0ffee", expected_units=names)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert card.rejects == {"filtered": 400 * units}
        assert pq.read_table(io.BytesIO(storage.read(REJECTS_PATH))).num_rows == 400 * units
    assert peaks[1] < 1.5 * peaks[0]
