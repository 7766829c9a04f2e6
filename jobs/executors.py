"""Where the units of a job run: in this process or on Ray, chosen by config, called alike.

    for outcome in executor_for(config).run(partial(make_work, job), units):
        ...                                     # in the order in which units finish

`factory` is called once in each process that works and gives the function that is called once for each unit. It must be
picklable, so it is a module-level function or a `functools.partial` of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, Literal, Protocol, TypeVar

from pydantic import Field, PositiveInt, model_validator

from jobs.unit_loop import Finished, Outcome, drive
from shards.config import Config
from shards.errors import ConfigError

UnitT = TypeVar("UnitT")
ResultT = TypeVar("ResultT")


class ExecutorConfig(Config):
    """Where work runs and on how many workers. It never changes what is written."""

    executor: Literal["inline", "ray"] = "inline"
    """`inline`: in this process; `ray`: on the cluster that is attached to, else on a Ray started for this command."""
    workers: PositiveInt | None = None
    """Units in work at a time; unset: as many as Ray has processors for."""
    address: str | None = None
    """A Ray cluster; unset: RAY_ADDRESS (set inside `ray job submit`), else a Ray of this command's own."""
    object_store_mib: int = Field(300, ge=80)
    """Memory of an own Ray's object store; units and reports are small, pictures never pass through it."""

    @model_validator(mode="after")
    def _inline_is_one_process(self) -> ExecutorConfig:
        if self.executor == "inline" and (self.workers or 1) > 1:
            raise ValueError("executor=inline is one process; say executor=ray to use several workers")
        return self


class Executor(Protocol):
    """Runs one function over many units."""

    def run(
        self,
        factory: Callable[[], Callable[[UnitT], ResultT]],
        units: Sequence[UnitT],
        *,
        resources: Mapping[str, float] | None = None,
        workers: int | None = None,
        stateful: bool = False,
    ) -> Generator[Outcome[UnitT, ResultT], None, None]:
        """Yield every unit's outcome, in the order in which they finish; closing the generator gives up the rest.

        Args:
            factory: gives the function that is called per unit.
            resources: what one worker needs, e.g. `{"CPU": 1, "GPU": 1}`; inline ignores it.
            workers: units in flight; unset: the executor's own setting.
            stateful: what the factory makes is costly (a loaded model), so make it once per worker and keep it.

        Raises:
            WorkerLostError: the same unit lost its worker more than `RETRIES` times.
            Exception: whatever the work raised for a unit; the run stops, outcomes so far stay valid.
        """
        ...


class InlineExecutor:
    """Runs units one after another in this process."""

    def run(
        self,
        factory: Callable[[], Callable[[UnitT], ResultT]],
        units: Sequence[UnitT],
        *,
        resources: Mapping[str, float] | None = None,
        workers: int | None = None,
        stateful: bool = False,
    ) -> Generator[Outcome[UnitT, ResultT], None, None]:
        backend: _InlineBackend[UnitT, ResultT] = _InlineBackend(factory)
        return drive(backend, units)


class _InlineBackend(Generic[UnitT, ResultT]):
    def __init__(self, factory: Callable[[], Callable[[UnitT], ResultT]]) -> None:
        self._factory = factory
        self._work: Callable[[UnitT], ResultT] | None = None
        self._started: tuple[int, UnitT] | None = None

    def capacity(self) -> int:
        return 1

    def start(self, ticket: int, unit: UnitT) -> None:
        self._started = (ticket, unit)

    def wait(self) -> Finished[ResultT]:
        assert self._started is not None
        ticket, unit = self._started
        self._work = self._work or self._factory()
        return Finished(
            ticket=ticket, result=self._work(unit)
        )  # an exception needs no carrying: it is raised right here

    def cancel(self) -> None:
        self._started = None


def cluster_for(config: ExecutorConfig) -> AbstractContextManager[None]:
    """Keep one Ray for several runs, because starting it takes longer than many a run; nothing where work is inline."""
    if config.executor == "inline":
        return nullcontext()
    from jobs.ray_executor import attached, cluster_address

    return attached(
        cluster_address(config.address), workers=config.workers, object_store_bytes=config.object_store_mib << 20
    )


def refuse_relative_paths(paths: Mapping[str, str | None]) -> None:
    """Inside `ray job submit` a relative path would mean the uploaded copy of the code, which is deleted afterwards.

    Args:
        paths: by config key; URLs and unset ones are fine.

    Raises:
        ConfigError: the command runs as a submitted job and a path is relative.
    """
    from jobs.ray_executor import SUBMITTED_JOB

    if SUBMITTED_JOB not in os.environ:
        return
    for key, path in paths.items():
        if path is not None and "://" not in path and not os.path.isabs(path):
            raise ConfigError(
                f"{key}={path} is relative, and inside `ray job submit` that is the uploaded copy of the code; "
                "give an absolute path that every node sees"
            )


def executor_for(config: ExecutorConfig) -> Executor:
    """Choose the executor that a config names; Ray is imported only when it is asked for."""
    return _EXECUTORS[config.executor](config)


def _ray(config: ExecutorConfig) -> Executor:
    from jobs.ray_executor import RayExecutor

    return RayExecutor(workers=config.workers, address=config.address, object_store_bytes=config.object_store_mib << 20)


_EXECUTORS: dict[str, Callable[[ExecutorConfig], Executor]] = {"inline": lambda _: InlineExecutor(), "ray": _ray}
