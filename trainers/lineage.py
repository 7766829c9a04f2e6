"""What a step of a run is made of, computed from the order and never logged: each slot's record, crop and sidecar rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from shards.address import example_rng
from shards.config import validate
from shards.errors import ConfigError, InputError
from shards.order import Stream
from shards.records import Record
from shards.stream import Item, RecordStream, StreamState
from trainers.assembly import OpenStreams, open_streams
from trainers.augment import AugmentConfig, Look, TrainView, decoded, picture_of
from trainers.checkpoint import find_checkpoint
from trainers.config import TrainConfig
from trainers.imported import is_imported
from trainers.mixing import lay_order
from trainers.run import CONFIG
from trainers.tasks import load_task


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One slot of a step."""

    slot: int  # within the global batch
    epoch: int  # of its source
    stream: str
    shard: str
    key: str
    annotation: int | None
    name: str  # what the digests in order.jsonl are made of
    looks: tuple[Look, ...]  # one per picture that the task shows
    reserve: bool  # the slot's own record is damaged, and this is its stand-in
    sidecars: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        looks = "; ".join(
            f"crop {look.crop.width}x{look.crop.height}+{look.crop.left}+{look.crop.top}"
            + (" mirrored" if look.flipped else "")
            + "".join(f" {operation.name}({operation.argument:+.2f})" for operation in look.operations)
            for look in self.looks
        )
        place = f"{self.stream}, epoch {self.epoch}, {self.shard}"
        return f"{self.slot:5d}  {self.name}  {looks}  [{place}]" + ("  reserve" if self.reserve else "")


def lineage(run: str | Path, step: int, *, decode: bool = False) -> tuple[Line, ...]:
    """Name every record of a training step.

    Args:
        run: the run folder, or one of its checkpoints.
        step: counted from 1, as the log counts.
        decode: also read and decode the pictures, so that a slot whose picture is damaged names its reserve. Without it only
            headers are read.

    Raises:
        InputError: the folder is no run.
        ConfigError: there is no such step.
        DatasetError: a dataset of the run is gone, or is not the one that it was trained on.
    """
    config, state = _run_config(Path(run))
    streams = open_streams(config)
    order = lay_order(config, streams, load_task(config.task))
    for name, digest in state.digests.items() if state is not None else ():
        if order.sources[name].dataset_digest != digest:
            raise InputError(
                f"{config.streams[name].dataset} is not the dataset that {run} was trained on as streams.{name}; "
                "put the former one back"
            )
    if state is not None:
        order = order.carry(state)
    if step < 1:
        raise ConfigError(f"step={step}: steps are counted from 1, as in the log")
    if config.steps is not None and step > config.steps:
        raise ConfigError(f"step={step}: the run has {config.steps} steps")
    return lines_of(config, streams, order, step, decode=decode)


def lines_of(
    config: TrainConfig, streams: OpenStreams, order: Stream, step: int, *, decode: bool = False
) -> tuple[Line, ...]:
    """Name every record of a step of a run whose datasets are open; see `lineage`."""
    task = load_task(config.task)
    records = RecordStream(
        order, streams.datasets, count=task.count, sidecars=streams.sidecars, views=streams.views, payload=decode
    )
    lines = []
    for slot, address in enumerate(order.slots(step - 1, 0, 1)):
        view = _Watching(config.augment, decode=decode)

        def watch(item: Item, view: _Watching = view) -> Item:
            view.looks.clear()
            task.example(item, view, example_rng(config.seed, item.address.epoch, item.name))
            return item

        item = records.make(address, watch)
        lines.append(
            Line(
                slot=slot,
                epoch=item.address.epoch,
                stream=item.address.source,
                shard=streams.datasets[item.address.source].manifest[item.address.shard].name,
                key=item.record.key,
                annotation=item.annotation,
                name=item.name,
                looks=tuple(view.looks),
                reserve=item.address != address,
                sidecars=item.sidecars,
            )
        )
    return tuple(lines)


class _Watching(TrainView):
    """Draws what training draws and writes it down; shows a task nothing but one grey pixel."""

    def __init__(self, config: AugmentConfig, *, decode: bool) -> None:
        super().__init__(1, config)
        self._decode = decode
        self.looks: list[Look] = []

    def __call__(self, record: Record, rng: np.random.Generator, *, position: int = 0) -> Tensor:
        media = picture_of(record, position)
        width, height = media.width, media.height
        if self._decode:
            picture = decoded(record, media)
            height, width = picture.height, picture.width
        if width is None or height is None:
            raise ConfigError(
                f"record {record.key!r}: its size is not known without decoding, so its crop cannot be told; say decode=true"
            )
        self.looks.append(self.draw(height, width, rng))
        return torch.full((3, 1, 1), 128, dtype=torch.uint8)


def _run_config(run: Path) -> tuple[TrainConfig, StreamState | None]:
    """The config of a run and, where it has a checkpoint, the state of its stream."""
    stored = run / CONFIG
    if stored.is_file() and not (run / "checkpoints").is_dir():
        return validate(TrainConfig, yaml.safe_load(stored.read_text(encoding="utf-8")), where=str(stored)), None
    if not run.exists():
        raise InputError(f"{run} is not there; give the `output` of a training")
    state = find_checkpoint(run).state
    if is_imported(state.config):
        raise InputError(
            f"{run} holds imported or averaged weights, which no step of ours made; give the `output` of a training"
        )
    return validate(TrainConfig, state.config, where=str(run)), StreamState.from_json(state.order)
