"""A plan on disk is the same plan: same units, same ids, picklable one by one, nothing held and nothing left behind."""

from __future__ import annotations

import os
import pickle
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.source import Target, Unit
from pipelines.spool import SpooledUnits
from shards.errors import OstrakaError

ITEMS: list[dict[str, Any]] = [
    {"id": str(number), "text": f"line\nbreak {number} \u2028 é 漢", "numbers": [number, 0.5, None]}
    for number in range(23)
]


def test_units_hold_the_items_in_their_order_with_the_last_what_is_left() -> None:
    units = SpooledUnits(ITEMS, size=5)
    assert [len(unit.items) for unit in units] == [5, 5, 5, 5, 3]
    assert [item for unit in units for item in unit.items] == ITEMS
    assert (units[-1].index, units[1].items[-1], list(units[1].items[1:3])) == (4, ITEMS[9], ITEMS[6:8])
    assert units.item_count == 23
    with pytest.raises(IndexError):
        units[5]


def test_an_id_depends_on_the_items_and_not_on_where_they_lie() -> None:
    units = SpooledUnits(ITEMS, size=5)
    for unit in units:
        plain = Unit(index=unit.index, items=tuple(unit.items))
        assert unit.id("c") == plain.id("c") == pickle.loads(pickle.dumps(unit)).id("c")
        assert unit.id("c") != unit.id("d")
        assert unit.id("c") != Unit(index=unit.index, items=plain.items, retry=True).id("c")
    assert units[0].id("c") != SpooledUnits(ITEMS[1:], size=5)[0].id("c")


def test_a_unit_travels_with_its_own_items_alone() -> None:
    units = SpooledUnits(({"id": str(n), "text": os.urandom(500).hex()} for n in range(1000)), size=10)
    travelled = pickle.dumps(units[7])
    assert len(travelled) < 3 * 10 * 1000
    del units
    assert [item["id"] for item in pickle.loads(travelled).items] == [str(n) for n in range(70, 80)]


def test_numbering_may_go_on_after_a_finished_dataset() -> None:
    target = Target(dataset="d", split="s", records_per_shard=10, max_pixels=1)
    assert [unit.index for unit in target.slice(ITEMS, first_index=7)] == [7, 8, 9]


def test_a_plan_of_many_items_is_not_held_and_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def items() -> Iterator[dict[str, Any]]:
        for number in range(20_000):
            yield {"id": str(number), "text": "x" * 2000}  # 40 MB in all

    next(iter(SpooledUnits(ITEMS, size=5)))  # what is loaded once does not count
    tracemalloc.start()
    units = SpooledUnits(items(), size=100)
    assert sum(len(item["text"]) for unit in units for item in unit.items) == 40_000_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000
    assert list(tmp_path.iterdir()) == []


def test_a_full_temporary_folder_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full.open("r+b", buffering=0))
    with pytest.raises(OstrakaError, match="set TMPDIR to a larger disk"):
        SpooledUnits(ITEMS, size=5)
