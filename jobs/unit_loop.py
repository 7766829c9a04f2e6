"""The one loop behind every executor: start, wait, retry what lost its worker, stop at what failed.

Backends only start work and wait for it, so that no backend can forget to retry or to stop.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

logger = logging.getLogger(__name__)

UnitT = TypeVar("UnitT")
ResultT = TypeVar("ResultT")
UnitT_contra = TypeVar("UnitT_contra", contravariant=True)

RETRIES = 3  # of one unit, when the worker that had it died; a unit that kills four workers is no accident


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[UnitT, ResultT]):
    """A finished unit and what its work returned."""

    unit: UnitT
    result: ResultT


class WorkerLostError(Exception):
    """The process that had the unit is gone: killed, out of memory, or its node died. The unit itself did nothing wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Generic[ResultT]):
    """What a backend hands back: the ticket it was given, and either a result or what went wrong."""

    ticket: int
    result: ResultT | None = None
    error: BaseException | None = None


class Backend(Protocol[UnitT_contra, ResultT]):
    """Starts work and waits for it, and nothing else."""

    def capacity(self) -> int:
        """How many units should be in flight."""
        ...

    def start(self, ticket: int, unit: UnitT_contra) -> None: ...

    def wait(self) -> Finished[ResultT]:
        """Block until any started unit is finished."""
        ...

    def cancel(self) -> None:
        """Give up whatever is in flight; called once, at the end or when a unit failed."""
        ...


def drive(
    backend: Backend[UnitT, ResultT], units: Sequence[UnitT], *, retries: int = RETRIES
) -> Generator[Outcome[UnitT, ResultT], None, None]:
    """Run all units on a backend, bounded in flight; the one loop of every executor."""
    waiting = deque(range(len(units)))
    losses = dict.fromkeys(waiting, 0)
    in_flight = 0
    try:
        while waiting or in_flight:
            while waiting and in_flight < backend.capacity():
                ticket = waiting.popleft()
                backend.start(ticket, units[ticket])
                in_flight += 1
            finished = backend.wait()
            in_flight -= 1
            if isinstance(finished.error, WorkerLostError):
                losses[finished.ticket] += 1
                if losses[finished.ticket] > retries:
                    raise finished.error
                logger.warning("unit %d lost its worker (%s); trying again", finished.ticket, finished.error)
                waiting.append(finished.ticket)
            elif finished.error is not None:
                raise finished.error
            else:
                yield Outcome(unit=units[finished.ticket], result=finished.result)  # type: ignore[arg-type]
    finally:
        backend.cancel()
