"""Training: streams and a family to weights. One entry under plain Python, `torchrun` and Ray Train; it resumes by itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from shards.config import nearest
from shards.errors import ConfigError, OstrakaError
from shards.stream import Damage
from trainers.assembly import open_streams
from trainers.checkpoint import CheckpointFolder, RunState
from trainers.config import TrainConfig
from trainers.distributed import joined_group
from trainers.interval_clock import IntervalClock
from trainers.lineage import lines_of
from trainers.meter import Meter
from trainers.mixing import lay_order
from trainers.observe import ORDER, Interval, JsonLines, MetricsFile, Observer, SteadyLine, TensorBoard
from trainers.presence import Termination, claimed, until_terminated
from trainers.run import Run, prepare, steps_of
from trainers.tasks import load_task

logger = logging.getLogger(__name__)

SLOTS_TOLD = 16  # of a bad step, how many of its slots the log spells out

OnStep = Callable[
    [int, int, Interval | None], object
]  # steps done, of how many, the interval that ended with this step


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSummary:
    """How a run ended."""

    output: str
    step: int
    steps: int
    resumed_from: int  # 0: the run started afresh
    losses: Mapping[str, float]  # means over the last interval; empty when nothing was left to do
    seconds: float
    damaged: tuple[Damage, ...] = ()  # records whose slots were taken by reserves, over all ranks, each once
    skipped: tuple[int, ...] = ()  # steps, counted from 1, whose update was left out for a bad loss

    @property
    def is_complete(self) -> bool:
        """Whether every step is done; false when a SIGTERM ended the process after a checkpoint."""
        return self.step >= self.steps


def train(
    config: TrainConfig,
    *,
    on_step: OnStep | None = None,
    lines: bool = True,
    termination: Termination | None = None,
) -> TrainSummary:
    """Train from a config, or go on where the run in `config.output` stands.

    Args:
        config: the run.
        on_step: told after every step, on rank 0 only.
        lines: whether rank 0 logs a steady line per interval; a live bar makes it redundant.
        termination: asked whether to end, by a launcher that catches signals itself.

    Raises:
        ConfigError: the config is wrong, or differs from the one that the run was started with.
        DatasetError: a dataset or sidecar is missing, damaged, or not the one that the run was started with.
        BadLossError: a loss became NaN or infinite, or exploded, and may not be skipped.
        BudgetError: more records are damaged than `damage` allows.
        CheckpointError: a checkpoint cannot be written, or does not fit the config.
        PeerError: another process of the run stopped.
    """
    with ExitStack() as stack:
        group = stack.enter_context(joined_group(config.device))
        if group.is_main:
            stack.enter_context(claimed(Path(config.output)))
        termination = stack.enter_context(until_terminated(termination, grace_s=config.grace_s))
        run = prepare(config, group, termination)
        observers = _observers(run, lines=lines) if group.is_main else ()
        for observer in observers:
            stack.enter_context(closing(observer))
        return _train(run, observers, on_step)


def plan(config: TrainConfig) -> str:
    """Say in one line what a run would do; opens the datasets, builds no model, writes nothing."""
    streams = open_streams(config)
    order = lay_order(config, streams, load_task(config.task))
    steps = steps_of(config, order)
    checkpoint = CheckpointFolder(Path(config.output) / "checkpoints", keep=config.keep).latest()
    stands = f"goes on after step {checkpoint.step:,}" if checkpoint else "starts afresh"
    return (
        f"{steps:,} steps of {config.batch_size} over {order.items:,} items ({order.steps_per_epoch:,} steps per epoch, "
        f"{steps / order.steps_per_epoch:.1f} epochs) of {', '.join(streams.datasets)}; {stands} -> {config.output}"
    )


def _train(run: Run, observers: tuple[Observer, ...], on_step: OnStep | None) -> TrainSummary:
    config, group, steps = run.config, run.group, run.horizon.steps
    started = time.monotonic()
    log = _Log(run, observers)
    done = saved = run.done
    for loaded in run.shared_steps.steps(run.done, steps):
        taken = run.step(loaded.micro_batches, loaded.step)
        log.meter.add(
            loaded.step,
            {**taken.losses, **taken.logged},
            bad=taken.bad,
            keys=loaded.names,
            first_slot=loaded.first_slot,
        )
        log.clock.add(loaded, taken)
        done = loaded.step + 1
        interval = None
        if done % config.log_every == 0 or done == steps:
            interval = log.end_interval(done, lr=taken.lr)
        if done % config.checkpoint_every == 0 or done == steps:
            log.save(done)
            saved = done
        if on_step is not None and group.is_main:
            on_step(done, steps, interval)
    if done > saved:  # some rank was asked to end
        log.save(done)
    run.saver.settle()
    if done < steps:
        logger.info("SIGTERM: stopped after step %d with a checkpoint; the same command goes on from there", done)
    group.barrier()
    log.close()
    return TrainSummary(
        output=config.output,
        step=done,
        steps=steps,
        resumed_from=run.done,
        losses=log.losses,
        seconds=time.monotonic() - started,
        damaged=run.shared_steps.damages,
        skipped=log.meter.skipped,
    )


class _Log:
    """What is told and kept of the steps: the lines of an interval, the order, the checkpoints."""

    def __init__(self, run: Run, observers: tuple[Observer, ...]) -> None:
        state = run.checkpoint.state if run.checkpoint is not None else None
        self._run, self._observers = run, observers
        self._order = JsonLines(run.path / ORDER, resume_step=run.done) if run.group.is_main else None
        self._metrics: Mapping[str, float] = state.metrics if state is not None else {}
        self.clock = IntervalClock()
        self.losses: Mapping[str, float] = {}  # means over the last interval of this process
        self.meter = Meter(
            run.group,
            resumed=state.interval if state is not None else (),
            on_bad_loss=run.config.on_bad_loss,
            allowed=run.config.bad_loss.allowed,
            skipped=state.skipped if state is not None else (),
            lineage=lambda step: _lineage(run, step),
        )

    def end_interval(self, done: int, *, lr: float) -> Interval | None:
        """Settle the interval and tell the observers; of one without a sound step there is nothing to tell."""
        self._settle()
        means = self.meter.take()
        if means is None:
            return None
        self.losses = {name: value for name, value in means.items() if name == "loss" or name.startswith("loss/")}
        self._metrics = means
        self._refuse_unknown_metric(means)
        interval = self.clock.interval(done, self._run, means, self.losses, lr=lr)
        for observer in self._observers:
            observer.interval(interval)
        return interval

    def _refuse_unknown_metric(self, means: Mapping[str, float]) -> None:
        """Only the first interval shows what a run measures: that is when a mistaken name can be told, and little is lost."""
        best = self._run.config.keep_best
        if best is not None and best.metric not in means:
            raise ConfigError(
                f"keep_best.metric={best.metric!r} is nothing that this run measures: {nearest(best.metric, means)}"
            )

    def save(self, done: int) -> None:
        """Write a checkpoint, or begin to, after `done` steps."""
        self._settle()
        run = self._run
        state = RunState(
            step=done,
            config=run.config.model_dump(mode="json"),
            order=run.order.state(done).to_json(),
            sidecars=run.streams.sidecar_folders(),
            interval=self.meter.settled,
            damaged=run.shared_steps.damages,
            metrics=self._metrics,
            recent_losses=run.step.guard.recent(),
            skipped=self.meter.skipped,
        )
        run.saver.save(state, run.model.family, run.step.optimizer)

    def close(self) -> None:
        """Close the files that are this object's own."""
        if self._order is not None:
            self._order.close()

    def _settle(self) -> None:
        rows = self.meter.settle()
        if self._order is not None:
            self._order.write(rows)


def _lineage(run: Run, step: int) -> str:
    """What a step was made of, one line per slot, the first of them."""
    try:
        lines = lines_of(run.config, run.streams, run.order, step)
    except OstrakaError as error:  # this must not hide what it was asked for
        return f"; what the step was made of cannot be told ({error})"
    more = (
        f" (`python -m jobs lineage run={run.path} step={step}` names all {len(lines)})" if lines[SLOTS_TOLD:] else ""
    )
    return "\n".join([f"; step {step} was made of{more}:", *map(str, lines[:SLOTS_TOLD])])


def _observers(run: Run, *, lines: bool) -> tuple[Observer, ...]:
    observers: list[Observer] = [MetricsFile(run.path, resume_step=run.done)]
    if run.config.tensorboard:
        observers.append(TensorBoard(run.path, resume_step=run.done))
    if lines:
        observers.append(SteadyLine())
    return tuple(observers)
