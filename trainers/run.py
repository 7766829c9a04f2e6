"""All objects of a training run, built once from its config: data, model, order, and where its newest checkpoint stands."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from model.families import load_family
from model.layers.layer import checkpoint_activations
from shards.config import validate
from shards.errors import ConfigError, DatasetError
from shards.stream import RecordStream, Stream, StreamState
from trainers.assembly import (
    VOCABULARY,
    Model,
    OpenStreams,
    build_model,
    load_initial_weights,
    open_streams,
    settle_vocabulary,
)
from trainers.augment import TrainView
from trainers.bad_loss import LossGuard
from trainers.checkpoint import Checkpoint, CheckpointFolder
from trainers.config import MAY_CHANGE, TrainConfig, changed_keys
from trainers.distributed import Group
from trainers.imported import is_imported
from trainers.loader import Loader
from trainers.mixing import lay_order
from trainers.optim import Horizon, build_optimizer, learning_rate
from trainers.parallel import lay_out
from trainers.presence import Termination
from trainers.saver import Saver, restore_after_layout, restore_before_layout
from trainers.shared_steps import SharedSteps
from trainers.step import TrainStep
from trainers.tasks import load_task

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
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
    saver: Saver
    checkpoint: Checkpoint | None

    @property
    def done(self) -> int:
        return self.checkpoint.step if self.checkpoint is not None else 0


def prepare(config: TrainConfig, group: Group, termination: Termination) -> Run:
    """Open the data, build the model, and put it where the newest checkpoint stands.

    Every rank must call it; where it fails on one of them, those that wait for it are told.

    Raises:
        ConfigError: the config is wrong, or another one than the run was started with.
        DatasetError: a dataset or sidecar is missing, damaged, or not the one that the run was started with.
        PeerError: another rank failed.
    """
    if config.parallel == "fsdp" and group.world == 1:
        raise ConfigError(
            "parallel=fsdp shards a model over several processes and this run has one; start it with torchrun or with "
            "executor=ray workers=…, or leave parallel out"
        )
    path = Path(config.output)
    folder = CheckpointFolder(path / "checkpoints", keep=config.keep, best=config.keep_best)
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
            f"which family {model.spec['kind']!r} as it is configured does not learn from; it learns from "
            f"{' and '.join(sorted(kind.__name__ for kind in model.family.serves))} examples: choose a preset of the task, or "
            "another family.head.kind"
        )
    if config.batch_tokens is None:
        _refuse_small_parts(config, group, least=model.family.least_batch)
    config = config.model_copy(update={"family": dict(model.spec)})
    if checkpoint is not None:
        refuse_another_run(checkpoint, config, streams)
        order = order.carry(StreamState.from_json(checkpoint.state.order))
    elif group.is_main:
        _store_config(config, path)
    horizon = Horizon(steps=steps_of(config, order), steps_per_epoch=order.steps_per_epoch)
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
    saver = Saver(folder, group, form=config.checkpoint_form)
    return Run(
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
            asked_to_end=lambda: termination.asked,
            check=saver.check,
        ),
        model=model,
        step=_step(config, model, group, horizon, checkpoint),
        saver=saver,
        checkpoint=checkpoint,
    )


def _refuse_small_parts(config: TrainConfig, group: Group, *, least: int) -> None:
    part = config.batch_size // (group.world * config.micro_batches)
    if part < least:
        raise ConfigError(
            f"batch_size={config.batch_size} leaves {part} examples to each of {group.world} process(es) times "
            f"{config.micro_batches} micro-batch(es), and this family relates at least {least} with one another; set "
            f"batch_size to {least * group.world * config.micro_batches} or more"
        )


def steps_of(config: TrainConfig, order: Stream) -> int:
    """How many optimiser steps the whole run has."""
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None  # the config holds exactly one of the two
    return order.steps_of(config.epochs)


def _step(
    config: TrainConfig, model: Model, group: Group, horizon: Horizon, checkpoint: Checkpoint | None
) -> TrainStep:
    """Give the family its weights, lay it out on the ranks, and give the optimiser its moments."""
    if checkpoint is not None:
        restore_before_layout(model.family, checkpoint)
    elif config.init is not None:
        report = load_initial_weights(model.family, config.init)
        if group.is_main:
            logger.info("init from %s: %s", config.init, report)
    model.family.to(group.device)
    if config.channels_last:
        model.family.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
    if config.checkpoint_activations:
        checkpoint_activations(model.family)
    parallel = lay_out(model.family, group, mode=config.parallel, fsdp=config.fsdp)
    optimizer = build_optimizer(model.family, config.optim, lr=learning_rate(config.schedule, 0, horizon))
    if checkpoint is not None:
        restore_after_layout(model.family, optimizer, checkpoint, group)
        if group.is_main:
            logger.info("resuming %s after step %d of %d", config.output, checkpoint.step, horizon.steps)
    recent = checkpoint.state.recent_losses if checkpoint is not None else ()
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
        parallel=parallel,
        guard=LossGuard(config.bad_loss, group, recent=recent),
        on_bad_loss=config.on_bad_loss,
    )


def refuse_another_run(checkpoint: Checkpoint, config: TrainConfig, streams: OpenStreams) -> None:
    """Stop before a run is continued with another config or other sidecars than it was started with.

    Paths of datasets may change as long as their digests do not, which the order looks at. So may the batch size: the order
    goes on at the very sample.

    Raises:
        ConfigError: names the keys that differ.
        DatasetError: a concepts sidecar is another one.
    """
    if is_imported(checkpoint.state.config):
        raise ConfigError(
            f"output={config.output!r} holds weights that were imported or averaged, and no training to go on with; start one "
            f"in another output, with init={config.output}"
        )
    stored, current = _completed(checkpoint), config.model_dump(mode="json")
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


def _completed(checkpoint: Checkpoint) -> dict[str, Any]:
    """The config that a checkpoint was written with; keys that came into being later have their defaults."""
    stored = validate(TrainConfig, checkpoint.state.config, where=str(checkpoint.path))
    family = validate(load_family(stored.family).Config, stored.family, where=f"{checkpoint.path}: family")
    return stored.model_dump(mode="json") | {"family": family.model_dump(mode="json")}


def _at(values: Mapping[str, object], key: str) -> object:
    found: object = values
    for part in key.split("."):
        found = found.get(part, "unset") if isinstance(found, Mapping) else "unset"
    return found


def _store_config(config: TrainConfig, path: Path) -> None:
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    unfinished = path / f".{CONFIG}"
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path / CONFIG)
