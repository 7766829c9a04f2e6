"""Training: streams and a family to weights. One entry under plain Python, `torchrun` and Ray Train; it resumes by itself."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import yaml

from model.checkpoints import save_weights
from shards.errors import ConfigError, DatasetError
from shards.stream import Damage, RecordStream, Stream, StreamState
from trainers.assembly import (
    VOCABULARY,
    Model,
    OpenStreams,
    build_model,
    load_exactly,
    load_initial_weights,
    open_streams,
    settle_vocabulary,
)
from trainers.augment import TrainView
from trainers.checkpoint import Checkpoint, CheckpointFolder, RunState
from trainers.config import MAY_CHANGE, TrainConfig, changed_keys
from trainers.distributed import Group, joined_group
from trainers.loader import LoadedStep, Loader
from trainers.meter import Meter
from trainers.mixing import lay_order
from trainers.observe import ORDER, Interval, JsonLines, MetricsFile, Observer, SteadyLine, TensorBoard
from trainers.optim import Horizon, build_optimizer, learning_rate, load_optimizer_state, optimizer_state_by_name
from trainers.presence import Termination, claimed, until_terminated
from trainers.shared_steps import SharedSteps
from trainers.step import StepLosses, TrainStep
from trainers.tasks import load_task

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"

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

    @property
    def is_complete(self) -> bool:
        """Whether every step is done; false when a SIGTERM ended the process after a checkpoint."""
        return self.step >= self.steps


def train(config: TrainConfig, *, on_step: OnStep | None = None, lines: bool = True) -> TrainSummary:
    """Train from a config, or go on where the run in `config.output` stands.

    Args:
        config: the run.
        on_step: told after every step, on rank 0 only.
        lines: whether rank 0 logs a steady line per interval; a live bar makes it redundant.

    Raises:
        ConfigError: the config is wrong, or differs from the one that the run was started with.
        DatasetError: a dataset or sidecar is missing, damaged, or not the one that the run was started with.
        NonFiniteLossError: a loss became NaN or infinite.
        BudgetError: more records are damaged than `damage` allows.
        PeerError: another process of the run stopped.
    """
    with ExitStack() as stack:
        group = stack.enter_context(joined_group(config.device))
        if group.is_main:
            stack.enter_context(claimed(Path(config.output)))
        termination = stack.enter_context(until_terminated())
        run = _prepare(config, group)
        observers = _observers(run, lines=lines) if group.is_main else ()
        for observer in observers:
            stack.enter_context(closing(observer))
        return _train(run, termination, observers, on_step)


def plan(config: TrainConfig) -> str:
    """Say in one line what a run would do; opens the datasets, builds no model, writes nothing."""
    streams = open_streams(config)
    order = lay_order(config, streams, load_task(config.task))
    steps = _steps(config, order)
    checkpoint = CheckpointFolder(Path(config.output) / "checkpoints", keep=config.keep).latest()
    stands = f"goes on after step {checkpoint.step:,}" if checkpoint else "starts afresh"
    return (
        f"{steps:,} steps of {config.batch_size} over {order.items:,} items ({order.steps_per_epoch:,} steps per epoch, "
        f"{steps / order.steps_per_epoch:.1f} epochs) of {', '.join(streams.datasets)}; {stands} -> {config.output}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """All objects of a run, built once."""

    config: TrainConfig  # resolved: the family's config in full
    path: Path
    group: Group
    streams: OpenStreams
    order: Stream
    horizon: Horizon
    shared_steps: SharedSteps
    model: Model
    step: TrainStep
    folder: CheckpointFolder
    checkpoint: Checkpoint | None

    @property
    def done(self) -> int:
        return self.checkpoint.step if self.checkpoint is not None else 0


def _prepare(config: TrainConfig, group: Group) -> _Run:
    """Open the data, build the model, and put it where the newest checkpoint stands."""
    path = Path(config.output)
    folder = CheckpointFolder(path / "checkpoints", keep=config.keep)
    with group.together():  # a node that lacks a dataset must not leave the others waiting
        streams = open_streams(config)
        task = load_task(config.task)
        order = lay_order(config, streams, task)
        checkpoint = folder.latest()
    group.agree(
        checkpoint.step if checkpoint else 0, "newest checkpoint; put `output` on storage that all of them share"
    )
    with group.together():
        if group.is_main:
            settle_vocabulary(config, streams, path)
    model = build_model(config.family, path / VOCABULARY, seed=config.seed)
    if task.emits not in model.family.serves:
        raise ConfigError(
            f"task.kind={config.task.get('kind')!r} makes {task.emits.__name__} examples, "
            f"which family {model.spec['kind']!r} does not serve"
        )
    config = config.model_copy(update={"family": dict(model.spec)})
    if checkpoint is not None:
        refuse_another_run(checkpoint, config, streams)
        order = order.carry(StreamState.from_json(checkpoint.state.order))
    elif group.is_main:
        _store_config(config, path)
    horizon = Horizon(steps=_steps(config, order), steps_per_epoch=order.steps_per_epoch)
    records = RecordStream(
        order, streams.datasets, count=task.count, sidecars=streams.sidecars, views=streams.views, budget=config.damage
    )
    loader = Loader(
        records,
        task=task,
        processor=model.processor,
        view=TrainView(model.processor.view.image_size, config.augment),
        rank=group.rank,
        world=group.world,
        micro_batches=config.micro_batches,
        workers=config.loader_workers,
        start_method=config.loader_start,
    )
    return _Run(
        config=config,
        path=path,
        group=group,
        streams=streams,
        order=order,
        horizon=horizon,
        shared_steps=SharedSteps(
            loader,
            group,
            allowed_damage=records.allowed_damage,
            known=checkpoint.state.damaged if checkpoint is not None else (),
        ),
        model=model,
        step=_step(config, model, group, horizon, checkpoint),
        folder=folder,
        checkpoint=checkpoint,
    )


def _train(
    run: _Run, termination: Termination, observers: tuple[Observer, ...], on_step: OnStep | None
) -> TrainSummary:
    config, group, steps = run.config, run.group, run.horizon.steps
    order_lines = JsonLines(run.path / ORDER, resume_step=run.done) if group.is_main else None
    meter = Meter(group, resumed=run.checkpoint.state.interval if run.checkpoint else ())
    started = time.monotonic()
    clock = _IntervalClock()
    losses: Mapping[str, float] = {}
    done = run.done
    for loaded in run.shared_steps.steps(run.done, steps):
        taken = run.step(loaded.micro_batches, loaded.step)
        meter.add(loaded.step, {**taken.losses, **taken.logged}, keys=loaded.names, first_slot=loaded.first_slot)
        clock.add(loaded, taken)
        done = loaded.step + 1
        ends_interval = done % config.log_every == 0 or done == steps
        # Alone, a process stops at once; several must stop at the same step, so they ask one another once per interval.
        stops = termination.asked if group.world == 1 else ends_interval and group.any(termination.asked)
        saves = done % config.checkpoint_every == 0 or done == steps or stops
        interval = None
        if ends_interval or saves:
            rows = meter.settle()
            if order_lines is not None:
                order_lines.write(rows)
        if ends_interval:
            means = meter.take()
            losses = {name: value for name, value in means.items() if name == "loss" or name.startswith("loss/")}
            interval = clock.interval(done, run, means, losses, lr=taken.lr)
            for observer in observers:
                observer.interval(interval)
        if saves and group.is_main:
            _save(run, done, meter)
        if on_step is not None and group.is_main:
            on_step(done, steps, interval)
        if stops and done < steps:
            logger.info("SIGTERM: stopped after step %d with a checkpoint; the same command goes on from there", done)
            break
    group.barrier()
    if order_lines is not None:
        order_lines.close()
    return TrainSummary(
        output=config.output,
        step=done,
        steps=steps,
        resumed_from=run.done,
        losses=losses,
        seconds=time.monotonic() - started,
        damaged=run.shared_steps.damages,
    )


def _steps(config: TrainConfig, order: Stream) -> int:
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None  # the config holds exactly one of the two
    return order.steps_of(config.epochs)


def _step(
    config: TrainConfig, model: Model, group: Group, horizon: Horizon, checkpoint: Checkpoint | None
) -> TrainStep:
    """Give the family its weights and the optimiser its moments."""
    if checkpoint is not None:
        load_exactly(model.family, checkpoint)
    elif config.init is not None:
        report = load_initial_weights(model.family, config.init)
        if group.is_main:
            logger.info("init from %s: %s", config.init, report)
    model.family.to(group.device)
    optimizer = build_optimizer(model.family, config.optim, lr=learning_rate(config.schedule, 0, horizon))
    if checkpoint is not None:
        load_optimizer_state(model.family, optimizer, checkpoint.optimizer_state(), where=str(checkpoint.path))
        if group.is_main:
            logger.info("resuming %s after step %d of %d", config.output, checkpoint.step, horizon.steps)
    return TrainStep(
        model.family,
        optimizer,
        schedule=config.schedule,
        horizon=horizon,
        group=group,
        seed=config.seed,
        precision=config.precision,
        clip_norm=config.optim.clip_norm,
        compiled=config.compile,
    )


def refuse_another_run(checkpoint: Checkpoint, config: TrainConfig, streams: OpenStreams) -> None:
    """Stop before a run is continued with another config or other sidecars than it was started with.

    Paths of datasets may change as long as their digests do not, which the order looks at. So may the batch size: the order
    goes on at the very sample.

    Raises:
        ConfigError: names the keys that differ.
        DatasetError: a concepts sidecar is another one.
    """
    stored, current = dict(checkpoint.state.config), config.model_dump(mode="json")
    paths = {f"streams.{name}.{key}" for name in config.streams for key in ("dataset", "concepts")}
    free = MAY_CHANGE | {"batch_size"}
    keys = [key for key in changed_keys(stored, current) if key.split(".")[0] not in free and key not in paths]
    if keys:
        named = ", ".join(f"{key} ({_at(stored, key)!r} → {_at(current, key)!r})" for key in keys)
        raise ConfigError(
            f"{config.output} holds step {checkpoint.step} of a run with another config: {named}; restore the values, "
            "or start a new run in another output (with init=… to keep the weights)"
        )
    if streams.sidecar_folders() != dict(checkpoint.state.sidecars):
        raise DatasetError(
            f"{config.output} was started with sidecars {dict(checkpoint.state.sidecars)}, the streams now have "
            f"{streams.sidecar_folders()}; name the old ones in streams.<name>.concepts"
        )
    if stored["batch_size"] != config.batch_size:
        logger.warning(
            "batch_size was %d and is %d after step %d; steps, schedule and rates stay as the config says them",
            *(stored["batch_size"], config.batch_size, checkpoint.step),
        )


def _at(values: Mapping[str, object], key: str) -> object:
    found: object = values
    for part in key.split("."):
        found = found.get(part, "unset") if isinstance(found, Mapping) else "unset"
    return found


def _save(run: _Run, done: int, meter: Meter) -> None:
    state = RunState(
        step=done,
        config=run.config.model_dump(mode="json"),
        order=run.order.state(done).to_json(),
        sidecars=run.streams.sidecar_folders(),
        interval=meter.settled,
        damaged=run.shared_steps.damages,
    )
    family = run.model.family
    run.folder.save(
        state,
        write_weights=lambda path: save_weights(family, path),
        optimizer_state=optimizer_state_by_name(family, run.step.optimizer),
    )


def _store_config(config: TrainConfig, path: Path) -> None:
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    unfinished = path / f".{CONFIG}"
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path / CONFIG)


def _observers(run: _Run, *, lines: bool) -> tuple[Observer, ...]:
    observers: list[Observer] = [MetricsFile(run.path, resume_step=run.done)]
    if run.config.tensorboard:
        observers.append(TensorBoard(run.path, resume_step=run.done))
    if lines:
        observers.append(SteadyLine())
    return tuple(observers)


class _IntervalClock:
    """Speed and waiting since the last interval, and the time left at that speed."""

    def __init__(self) -> None:
        self._spent_s: defaultdict[str, float] = defaultdict(float)
        self._items = 0  # of this rank
        self._since = time.monotonic()
        self._steps_since: int | None = None

    def add(self, loaded: LoadedStep, taken: StepLosses) -> None:
        """Count one step."""
        self._items += len(loaded.names)
        for name, seconds in (("wait", loaded.waited_s), ("copy", taken.copied_s), *loaded.spent_s.items()):
            self._spent_s[name] += seconds

    def interval(
        self, done: int, run: _Run, means: Mapping[str, float], losses: Mapping[str, float], *, lr: float
    ) -> Interval:
        now = time.monotonic()
        elapsed = max(now - self._since, 1e-9)
        steps = done - (run.done if self._steps_since is None else self._steps_since)
        interval = Interval(
            step=done,
            steps=run.horizon.steps,
            losses=losses,
            logged={name: value for name, value in means.items() if name not in losses},
            lr=lr,
            images_per_s=self._items * run.group.world / elapsed,
            wait_share=min(1.0, self._spent_s["wait"] / elapsed),
            eta_s=(run.horizon.steps - done) * elapsed / steps,
            seconds={"step": elapsed / steps, **{name: value / steps for name, value in self._spent_s.items()}},
            damaged=len(run.shared_steps.damages),
        )
        self._since, self._spent_s, self._steps_since, self._items = now, defaultdict(float), done, 0
        return interval
