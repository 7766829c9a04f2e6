"""The Ray backend of `jobs/unit_loop.py`: one task per unit, or a pool of actors where work holds a loaded model.

The only file besides `jobs/ray_train.py` that imports ray. It attaches to the cluster it is told of, and starts (and
ends) one of its own where there is none.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from jobs.unit_loop import Finished, Outcome, WorkerLostError, drive
from shards.errors import MissingLibraryError, OstrakaError

logger = logging.getLogger(__name__)

UnitT = TypeVar("UnitT")
ResultT = TypeVar("ResultT")

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("shards", "pipelines", "concepts", "model", "trainers", "jobs")
SUBMITTED_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the driver of a submitted job, and nowhere else
START_ATTEMPTS = 3
_LONGEST_TEMP_ROOT = 30  # a socket path below it must stay within the 107 bytes that Linux allows


class RayExecutor:
    """Runs units on Ray; the cluster is attached to, or started, when the first run begins."""

    def __init__(
        self, *, workers: int | None = None, address: str | None = None, object_store_bytes: int = 300 * 1024 * 1024
    ) -> None:
        """Args:
        workers: units in flight; unset: one for every processor of the cluster.
        address: a cluster to attach to; unset: RAY_ADDRESS, else an own Ray on this machine.
        object_store_bytes: memory of an own Ray's object store.
        """
        self._workers = workers
        self._address = cluster_address(address)
        self._object_store_bytes = object_store_bytes

    def run(
        self,
        factory: Callable[[], Callable[[UnitT], ResultT]],
        units: Sequence[UnitT],
        *,
        resources: Mapping[str, float] | None = None,
        workers: int | None = None,
        stateful: bool = False,
    ) -> Generator[Outcome[UnitT, ResultT], None, None]:
        """See `Executor.run`. A worker that needs a GPU is always stateful."""
        if not units:
            return
        needs = {"CPU": 1.0, **(resources or {})}
        workers = workers or self._workers
        with attached(self._address, workers=workers, object_store_bytes=self._object_store_bytes):
            workers = min(workers or _workers_that_fit(needs), len(units))
            backend = (_ActorBackend if stateful or needs.get("GPU") else _TaskBackend)(factory, needs, workers)
            yield from drive(backend, units)


def cluster_address(configured: str | None) -> str | None:
    """The cluster to attach to: as configured, else RAY_ADDRESS; None (or `local`) means an own Ray on this machine."""
    address = configured or os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address


@contextmanager
def attached(address: str | None, *, workers: int | None, object_store_bytes: int) -> Iterator[None]:
    """Be connected to a Ray cluster; one that was already connected to, or attached to, is left as it was found.

    Raises:
        MissingLibraryError: ray is not installed.
        OstrakaError: the cluster cannot be reached, or an own one does not come up.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns of a change to come unless it is set
    with _own_environment() if address is None else _nothing():
        try:
            import ray
        except ImportError as error:
            raise MissingLibraryError("executor=ray needs ray: pip install 'ostraka[ray]'") from error
        if ray.is_initialized():
            yield
            return
        if address is not None:
            _attach(address)
            try:
                yield
            finally:
                ray.shutdown()
            return
        with _temporary_folder() as folder:
            _start(folder, workers=workers, object_store_bytes=object_store_bytes)
            try:
                yield
            finally:
                ray.shutdown()


def _attach(address: str) -> None:
    import ray

    # Inside `ray job submit` the job's own runtime environment carries the code; anywhere else our rooms travel with us.
    inside_job = SUBMITTED_JOB in os.environ
    environment = {} if inside_job else {"py_modules": [str(ROOT / room) for room in ROOMS]}
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OstrakaError(
            f"no Ray cluster could be attached to at {address} ({_first_line(error)}); "
            "check RAY_ADDRESS and RAY_AUTH_MODE, or unset RAY_ADDRESS to run on this machine"
        ) from error


def _start(folder: Path, *, workers: int | None, object_store_bytes: int) -> None:
    """Start an own Ray. On a busy machine its start-up can time out for no fault of anybody's, so it is tried again."""
    import ray

    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(
                address="local",  # never whatever cluster happens to be found on this machine
                num_cpus=workers,
                object_store_memory=object_store_bytes,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                # On this machine the workers read the very code that is running, from wherever the command was given.
                runtime_env={"env_vars": {"PYTHONPATH": _python_path(), "OMP_NUM_THREADS": "1"}},
                _temp_dir=str(folder),
            )
            return
        except (RuntimeError, ConnectionError, TimeoutError) as error:
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise OstrakaError(
                    f"Ray did not start on this machine in {START_ATTEMPTS} attempts ({_first_line(error)}); "
                    "its load or memory may be short: try again, or use executor=inline"
                ) from error
            logger.warning("Ray did not start (%s); trying again", _first_line(error))
            time.sleep(2.0 * attempt)


def _python_path() -> str:
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(ROOT), *([inherited] if inherited else [])])


@contextmanager
def _own_environment() -> Iterator[None]:
    """What an own Ray starts under: a token of its own, unless the user chose otherwise, and no submitted job's settings.

    Left alone, Ray writes a token into the home directory, and from then on every `ray start` of this user asks for it.
    Inside `ray job submit` it would also take over the job's package of code, which only the job's own cluster holds.
    """
    added = {} if "RAY_AUTH_MODE" in os.environ else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    hidden = {SUBMITTED_JOB: os.environ.pop(SUBMITTED_JOB)} if SUBMITTED_JOB in os.environ else {}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        os.environ.update(hidden)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder for an own Ray's sockets and logs, gone with it; its name is short, as a socket's path must be."""
    root = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="ostraka-", dir=root if len(root) <= _LONGEST_TEMP_ROOT else "/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _workers_that_fit(needs: Mapping[str, float]) -> int:
    import ray

    total = ray.cluster_resources()
    return max(1, int(min(total.get(name, 0.0) // amount for name, amount in needs.items() if amount > 0)))


def _options(needs: Mapping[str, float]) -> dict[str, Any]:
    others = {name: amount for name, amount in needs.items() if name not in ("CPU", "GPU")}
    return {"num_cpus": needs.get("CPU", 1.0), "num_gpus": needs.get("GPU", 0.0), "resources": others or None}


def _finished(ticket: int, reference: Any) -> Finished[Any]:
    """Fetch a result, and tell a lost worker (try again) from a unit that failed (stop)."""
    from ray import exceptions, get

    lost = (
        exceptions.WorkerCrashedError,
        exceptions.ActorDiedError,
        exceptions.ActorUnavailableError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        exceptions.ObjectLostError,
        exceptions.LocalRayletDiedError,
    )
    try:
        return Finished(ticket=ticket, result=get(reference))
    except lost as error:
        return Finished(ticket=ticket, error=WorkerLostError(f"{type(error).__name__}: {_first_line(error)}"))
    except exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, Exception) else error
        if cause is not error and not isinstance(cause, OstrakaError):
            cause.add_note(f"raised in a Ray worker:\n{error}")
        return Finished(ticket=ticket, error=cause)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _call(factory: Callable[[], Callable[[Any], Any]], unit: Any) -> Any:
    return factory()(unit)


class _Worker:
    """What an actor runs: the factory once, its product for every unit."""

    def __init__(self, factory: Callable[[], Callable[[Any], Any]]) -> None:
        self._work = factory()

    def work(self, unit: Any) -> Any:
        return self._work(unit)


class _TaskBackend(Generic[UnitT, ResultT]):
    """One stateless task per unit."""

    def __init__(self, factory: Callable[[], Callable[[UnitT], ResultT]], needs: Mapping[str, float], workers: int):
        import ray

        # max_retries=0: the loop in `executors` counts attempts, for every backend alike.
        self._task = ray.remote(**_options(needs), max_retries=0)(_call)
        self._factory = ray.put(factory)
        self._workers = workers
        self._tickets: dict[Any, int] = {}

    def capacity(self) -> int:
        return self._workers

    def start(self, ticket: int, unit: UnitT) -> None:
        self._tickets[self._task.remote(self._factory, unit)] = ticket

    def wait(self) -> Finished[ResultT]:
        import ray

        ready, _ = ray.wait(list(self._tickets), num_returns=1)
        return _finished(self._tickets.pop(ready[0]), ready[0])

    def cancel(self) -> None:
        import ray

        for reference in self._tickets:
            ray.cancel(reference, force=True)
        self._tickets.clear()


class _ActorBackend(Generic[UnitT, ResultT]):
    """A fixed number of actors, each with its own product of the factory; one that dies is replaced.

    Where a node was lost there may be no room for another: what waits for an actor that does not come up goes to one that is idle.
    """

    def __init__(self, factory: Callable[[], Callable[[UnitT], ResultT]], needs: Mapping[str, float], workers: int):
        import ray

        self._make = ray.remote(**_options(needs), max_restarts=0)(_Worker).remote
        self._factory = ray.put(factory)
        self._workers = workers
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[int, Any, UnitT]] = {}
        self._starting: dict[Any, Any] = {}  # what tells that an actor is up, by the work that it was made for

    def capacity(self) -> int:
        return self._workers

    def start(self, ticket: int, unit: UnitT) -> None:
        if self._idle:
            actor, is_up = self._idle.pop(), None
        else:
            actor = self._make(self._factory)
            is_up = actor.__ray_ready__.remote()
        work = actor.work.remote(unit)
        self._busy[work] = (ticket, actor, unit)
        if is_up is not None:
            self._starting[work] = is_up

    def wait(self) -> Finished[ResultT]:
        import ray

        self._hand_over()
        ready, _ = ray.wait(list(self._busy), num_returns=1)
        ticket, actor, _unit = self._busy.pop(ready[0])
        self._starting.pop(ready[0], None)
        finished: Finished[ResultT] = _finished(ticket, ready[0])
        if finished.error is None:
            self._idle.append(actor)
        else:
            ray.kill(actor)
        return finished

    def _hand_over(self) -> None:
        """Give units whose actors are not up to idle ones, which nothing else waits for when this is called."""
        import ray

        for work, is_up in list(self._starting.items()):
            if ray.wait([is_up], timeout=0)[0]:
                del self._starting[work]
            elif self._idle:
                ticket, actor, unit = self._busy.pop(work)
                del self._starting[work]
                ray.kill(actor)
                self.start(ticket, unit)

    def cancel(self) -> None:
        import ray

        for actor in [*self._idle, *(actor for _, actor, _ in self._busy.values())]:
            ray.kill(actor)
        self._idle.clear()
        self._busy.clear()
        self._starting.clear()
