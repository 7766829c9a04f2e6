"""One process and two take their steps by turns, on shares of the same batch."""

from __future__ import annotations

import pytest

from benchmarks.two_processes import main, measure


def test_both_parts_are_measured_by_both_clocks() -> None:
    found = measure("tiny", batch=4, rounds=1)
    assert set(found) == {f"{part}_{clock}" for part in ("compute", "step") for clock in ("wall_s", "cpu_s")}
    for figures in found.values():
        assert figures["one"]["median"] > 0
        assert 0 < figures["efficiency"]["median"] < 2


def test_a_batch_that_two_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["two_processes", "batch=3"])
    with pytest.raises(SystemExit, match="a batch is even"):
        main()
