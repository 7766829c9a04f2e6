"""The one loop: bounded in flight, lost workers retried, a failing unit stops the run with its own error."""

from __future__ import annotations

from collections import Counter

import pytest

from jobs.unit_loop import RETRIES, Finished, WorkerLostError, drive
from shards.errors import InputError


class Flaky:
    """A backend whose workers die as told, and which finishes the youngest unit first."""

    def __init__(self, deaths: dict[int, int], *, capacity: int = 3) -> None:
        self.deaths = Counter(deaths)
        self.in_flight: list[tuple[int, int]] = []
        self.most_in_flight = 0
        self.cancelled = False
        self._capacity = capacity

    def capacity(self) -> int:
        return self._capacity

    def start(self, ticket: int, unit: int) -> None:
        self.in_flight.append((ticket, unit))
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))

    def wait(self) -> Finished[int]:
        ticket, unit = self.in_flight.pop()
        if self.deaths[unit]:
            self.deaths[unit] -= 1
            return Finished(ticket=ticket, error=WorkerLostError("killed"))
        if unit < 0:
            return Finished(ticket=ticket, error=InputError(f"unit {unit} is negative"))
        return Finished(ticket=ticket, result=unit * unit)

    def cancel(self) -> None:
        self.cancelled = True


def test_every_unit_is_done_once_and_no_more_than_the_capacity_are_in_flight() -> None:
    backend = Flaky({})
    outcomes = list(drive(backend, range(10)))
    assert sorted((outcome.unit, outcome.result) for outcome in outcomes) == [(n, n * n) for n in range(10)]
    assert backend.most_in_flight == 3
    assert backend.cancelled


def test_units_that_lose_their_worker_are_tried_again() -> None:
    outcomes = list(drive(Flaky({2: RETRIES, 7: 1}), range(10)))
    assert sorted(outcome.result for outcome in outcomes) == [n * n for n in range(10)]


def test_a_unit_that_loses_every_worker_stops_the_run() -> None:
    backend = Flaky({2: RETRIES + 1})
    with pytest.raises(WorkerLostError):
        list(drive(backend, range(10)))
    assert backend.cancelled


def test_a_unit_that_fails_stops_the_run_with_its_own_error_and_without_a_retry() -> None:
    backend = Flaky({}, capacity=1)
    outcomes = []
    with pytest.raises(InputError, match="unit -3 is negative"):
        outcomes.extend(drive(backend, [5, -3, 6]))
    assert backend.in_flight == []
    assert backend.cancelled


def test_stopping_to_listen_cancels_what_is_in_flight() -> None:
    backend = Flaky({})
    run = drive(backend, range(10))
    next(run)
    run.close()
    assert backend.cancelled
