"""The loader: addresses of a step → records → examples → this rank's batches, the same for any number of workers and ranks."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from model.examples import Example, UnfitError
from model.family import Batch, Processor
from shards.address import example_rng, keyed_bits
from shards.errors import ConfigError, InputError, OstrakaError
from shards.foresight import Foresight
from shards.stream import Damage, Item, RecordStream, check_damage
from trainers.arrival import Deferred, unaugmented
from trainers.stopwatch import Stage, Stopwatch
from trainers.task import ImageView, Task

logger = logging.getLogger(__name__)

_OWNER_LOOKED_AT_S = 2.0


_DEATHS = 3  # of loader workers in a row, with not one step between them, until the loader gives up

StartMethod = Literal["fork", "spawn", "forkserver"]


class LoaderError(OstrakaError):
    """Loader workers die again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedStep:
    """What a rank trains on in one step."""

    step: int
    micro_batches: tuple[Batch, ...]  # the rank's slots, cut into parts of one task and modality each
    names: tuple[str, ...]  # `Item.name` of each of the rank's slots, in slot order
    first_slot: int  # number of the rank's first slot in the global batch
    damaged: tuple[Damage, ...] = ()  # met for the first time by the process that made this step
    waited_s: float = 0.0  # how long the caller waited; with no workers, how long the step took to make
    spent_s: Mapping[Stage, float] = field(default_factory=dict)  # by stage, in the process that made the step


class Loader:
    """Steps of one rank, in order, from any step on.

    What is guaranteed, for any world size that divides the batch and any number of workers and micro-batches:

    - slot i of step n holds the same example, pixels included: crops and every other choice of a task are keyed by
      (seed, epoch, item name);
    - the processor is given one seed per example, keyed likewise, so an example's masks and noise are the same wherever and
      with whichever others it is made. How far a batch is padded does depend on who else is in it.
    """

    def __init__(
        self,
        records: RecordStream,
        *,
        task: Task,
        processor: Processor,
        view: ImageView,
        rank: int = 0,
        world: int = 1,
        micro_batches: int = 1,
        workers: int = 0,
        prefetch: int = 2,
        start_method: StartMethod | None = None,
        train: bool = True,
    ) -> None:
        """Check that everything fits; nothing is read and no worker started before the first step is asked for.

        Args:
            records: the stream, which also brings the seed.
            task: makes examples of records.
            processor: makes a batch of examples.
            view: how pictures are shown to the task.
            rank: of this process, which owns a contiguous range of every batch's slots.
            world: number of processes; must divide the batch size.
            micro_batches: parts that a rank's slots are cut into; must divide them.
            workers: processes that make steps by turns; 0 makes them here.
            prefetch: steps that each worker makes ahead.
            start_method: how worker processes begin; unset: as Python does by default.
            train: whether the processor masks and draws, or prepares for evaluation.

        Raises:
            ConfigError: the ranks or micro-batches do not divide the batch, or the task counts otherwise than the stream.
        """
        own = records.stream.own_slots(rank, world)
        if len(own) % micro_batches:
            raise ConfigError(
                f"micro_batches={micro_batches} does not divide the {len(own)} slots of a process; choose a divisor"
            )
        if task.count != records.count:
            raise ConfigError(
                f"the task counts {task.count} and the stream counts {records.count}; make the stream for the task"
            )
        self._maker = _StepMaker(
            records=records,
            task=task,
            processor=processor,
            view=view,
            rank=rank,
            world=world,
            parts=micro_batches,
            train=train,
            foresight=Foresight(records=records, rank=rank, world=world),
        )
        self._records, self._workers, self._prefetch, self._start_method = records, workers, prefetch, start_method
        self._damages: dict[tuple[str, str, str], Damage] = {}

    @property
    def damages(self) -> tuple[Damage, ...]:
        """Every damaged record that this rank has met, each once, whichever worker met it."""
        return tuple(self._damages.values())

    def steps(self, start: int, stop: int) -> Generator[LoadedStep]:
        """Make the steps from `start` up to, but without, `stop`.

        Raises:
            BudgetError: too many records are damaged.
            LoaderError: worker processes died again and again.
        """
        self._maker.foresight.stop = stop
        with closing(
            self._made_here(start, stop) if self._workers == 0 else self._made_by_workers(start, stop)
        ) as made:
            while True:
                began = time.perf_counter()
                step = next(made, None)
                if step is None:
                    return
                self._note(step.damaged)
                yield replace(step, waited_s=time.perf_counter() - began)

    def _made_here(self, start: int, stop: int) -> Generator[LoadedStep]:
        for step in range(start, stop):
            yield self._maker.make(step)

    def _made_by_workers(self, start: int, stop: int) -> Generator[LoadedStep]:
        """Make steps in worker processes; where one is killed, new ones go on with the step that was due."""
        due, deaths = start, 0
        while due < stop:
            try:
                with closing(self._made_by_one_crew(due, stop)) as made:
                    for step in made:
                        yield step
                        due, deaths = step.step + 1, 0
            except _WorkerKilledError as problem:
                deaths += 1
                if deaths == _DEATHS:
                    raise LoaderError(
                        f"loader workers were killed {deaths} times in a row ({problem}), most often for want of memory; "
                        "lower loader_workers or batch_size and run the same command again, which goes on from the last "
                        "checkpoint"
                    ) from problem
                logger.warning("a loader worker was killed (%s); new workers go on with step %d", problem, due + 1)

    def _made_by_one_crew(self, start: int, stop: int) -> Generator[LoadedStep]:
        with _own_child_handler():
            loader = DataLoader(
                self._maker,
                batch_size=None,  # one item of this "data set" is one step
                sampler=range(start, stop),
                num_workers=self._workers,
                prefetch_factor=self._prefetch,
                multiprocessing_context=self._start_method,
                worker_init_fn=partial(_start_worker, os.getpid()),
                collate_fn=_as_it_is,
                generator=torch.Generator(),  # else starting workers would draw from the training process's generator
            )
            made: Any = iter(loader)
        try:
            while True:
                try:
                    step = next(made)
                except StopIteration:
                    return
                except RuntimeError as problem:
                    if "DataLoader worker" not in str(problem):
                        raise
                    raise _WorkerKilledError(str(problem).splitlines()[0].rstrip(". ")) from problem
                except (ConnectionError, EOFError) as problem:
                    # It was killed while it handed over a step: the half that arrived says less than torch would.
                    raise _WorkerKilledError(f"{type(problem).__name__} while it handed over a step") from problem
                if isinstance(step, OstrakaError):
                    raise step
                yield step
        finally:
            # Torch ends workers when their iterator is collected, which an error's traceback can put off for long.
            made._shutdown_workers()

    def _note(self, damaged: Sequence[Damage]) -> None:
        for each in damaged:
            place = (each.source, each.shard, each.key)
            if place not in self._damages:
                self._damages[place] = each
                logger.warning("damaged record replaced by its reserve: %s", each.what)
        check_damage(self.damages, allowed=self._records.allowed_damage)


class _WorkerKilledError(Exception):
    """A worker process of the present crew is gone; the message is torch's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """An example, the name of its item, the seed of the processor's draws for it, and what is still to be done to its pictures."""

    name: str
    example: Example
    seed: int
    deferred: Deferred  # to its pictures, on the device


@dataclass(kw_only=True)
class _StepMaker(Dataset[Any]):
    """A map from step numbers to this rank's steps; lives in the workers."""

    records: RecordStream
    task: Task
    processor: Processor
    view: ImageView
    rank: int
    world: int
    parts: int
    train: bool
    foresight: Foresight
    reported: int = 0  # how many damages this process has told of
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def __getitem__(self, step: int) -> LoadedStep | OstrakaError:
        # An error that is meant for a person travels as a value: raised here, it would arrive wrapped in a traceback.
        try:
            return self.make(step)
        except OstrakaError as error:
            return error

    def make(self, step: int) -> LoadedStep:
        stream = self.records.stream
        began = self.stopwatch.now()
        self._foresee(step)
        made = [self.records.make(address, self._example) for address in stream.slots(step, self.rank, self.world)]
        spent = self.view.stopwatch.take()
        # Making an example is all decoding and augmenting; what the tasks do beside it is too little to count.
        self.stopwatch.add("read", began)
        self.stopwatch.credit("read", -sum(spent.values()))
        for stage, seconds in spent.items():
            self.stopwatch.credit(stage, seconds)
        damages = self.records.damages
        new, self.reported = damages[self.reported :], len(damages)
        # Only the last batch of an evaluation is short, and then parts, too, may be short or missing.
        parts = stream.parts(step, self.rank, self.world, self.parts)
        began = self.stopwatch.now()
        micro_batches = tuple(self._batch([made[slot] for slot in part]) for part in parts)
        self.stopwatch.add("collate", began)
        return LoadedStep(
            step=step,
            micro_batches=micro_batches,
            names=tuple(each.name for each in made),
            first_slot=stream.span(step, self.rank, self.world).start,
            damaged=new,
            spent_s=self.stopwatch.take(),
        )

    def _foresee(self, step: int) -> None:
        info = get_worker_info()  # torch deals the steps to its workers by turns
        self.foresight.before(step, stride=1 if info is None else info.num_workers)

    def _example(self, item: Item) -> _Made:
        seed, epoch = self.records.stream.seed, item.address.epoch
        self.view.take_deferred()  # a damaged record may have left some
        example = self.task.example(item, self.view, example_rng(seed, epoch, item.name))
        # Not the seed of the task's generator: masks must not follow crops. 63 bits fit every library's seed.
        own_seed = keyed_bits("processor", seed, epoch, item.name) >> 1
        return _Made(name=item.name, example=example, seed=own_seed, deferred=self.view.take_deferred())

    def _batch(self, part: Sequence[_Made]) -> Batch:
        try:
            batch = self.processor([each.example for each in part], [each.seed for each in part], train=self.train)
        except UnfitError as error:
            raise InputError(str(error)) from error
        return unaugmented(batch, [each.deferred for each in part])


def _as_it_is(step: Any) -> Any:
    return step


def _start_worker(owner: int, worker: int) -> None:
    """Processes are the parallelism: a worker that starts threads only takes cores from the others.

    Args:
        owner: the training process. Torch ends a worker whose parent is gone, but with `spawn` and `forkserver` the parent is
            not the one who trains, and after a `kill -9` of that one its workers would stay for ever.
        worker: number of this one.
    """
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training process hears Ctrl-C and ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the training process may save on SIGTERM; a worker only ends
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()


def _end_with(owner: int) -> None:
    """End this process soon after another one has ended."""
    while True:
        try:
            os.kill(owner, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(_OWNER_LOOKED_AT_S)


@contextmanager
def _own_child_handler() -> Iterator[None]:
    """Undo the signal handler by which torch raises in the middle of whatever step runs when a worker dies.

    The loader finds the dead worker itself the next time it waits for a step, and says so in one place.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
