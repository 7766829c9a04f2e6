"""Sides run by turns; ratios are taken within a round."""

from __future__ import annotations

from benchmarks.rounds import Side, Step, compare


def side(name: str, log: list[str], *, seconds: list[float], records: int) -> Side:
    times = iter(seconds)

    def run() -> float:
        log.append(name)
        return next(times)

    return Side(records=records, run=run)


def test_sides_run_by_turns_and_ratios_are_taken_within_a_round() -> None:
    log: list[str] = []
    result = compare(
        Step(
            name="step",
            ours=side("ours", log, seconds=[99, 2, 4], records=8),
            floor=side("floor", log, seconds=[99, 1, 2], records=8),
            floor_is="nothing",
        ),
        rounds=2,
    )
    assert log == ["ours", "floor", "ours", "floor", "floor", "ours"]
    assert result["ours_records_per_s"] == {"median": 3, "min": 2, "max": 4}
    assert result["ours_to_floor"] == {"median": 0.5, "min": 0.5, "max": 0.5}


def test_each_side_counts_its_own_records() -> None:
    log: list[str] = []
    result = compare(
        Step(
            name="step",
            ours=side("ours", log, seconds=[1, 1], records=10),
            floor=side("floor", log, seconds=[1, 1], records=10),
            floor_is="nothing",
            peers={"other": side("other", log, seconds=[1, 1], records=5)},
        ),
        rounds=1,
    )
    assert result["ours_to_other"]["median"] == 2
