"""What a step of a run is made of, computed from the order and never logged: each slot's record, crop and wrong caption."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from model.examples import Example, Paired
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
from trainers.meter import order_digest
from trainers.mixing import lay_order
from trainers.observe import ORDER
from trainers.run import CONFIG, steps_of
from trainers.tasks import load_task

logger = logging.getLogger(__name__)


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
    wrong_text: str = ""  # the negative caption that was drawn for matching; empty where none was
    sidecars: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        looks = "; ".join(
            f"crop {look.crop.width}x{look.crop.height}+{look.crop.left}+{look.crop.top}"
            + (" mirrored" if look.flipped else "")
            + "".join(f" {operation.name}({operation.argument:+.2f})" for operation in look.operations)
            for look in self.looks
        )
        place = f"{self.stream}, epoch {self.epoch}, {self.shard}"
        against = f"  against {self.wrong_text!r}" if self.wrong_text else ""
        return f"{self.slot:5d}  {self.name}  {looks}{against}  [{place}]" + ("  reserve" if self.reserve else "")


def lineage(run: str | Path, step: int, *, decode: bool = False) -> tuple[Line, ...]:
    """Name every record of a training step.

    What comes out is held against the digest that the run has logged for the step; where they differ, a warning says so.

    Args:
        run: the run folder, or one of its checkpoints.
        step: counted from 1, as the log counts.
        decode: also read and decode the pictures, so that a slot whose picture is damaged names its reserve. Without it only
            headers are read, unless the log shows that they do not tell all.

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
    if step > (steps := steps_of(config, order)):
        raise ConfigError(f"step={step}: the run has {steps} steps")
    lines = lines_of(config, streams, order, step, decode=decode)
    logged = _logged_digest(Path(run), step)
    if not decode and logged not in (None, _digest_of(lines)):
        lines = lines_of(config, streams, order, step, decode=True)
    if logged not in (None, _digest_of(lines)):
        logger.warning(
            "%s: the log has another digest for step %d than these records give: some of them were damaged then and are not "
            "now, or the other way round",
            run,
            step,
        )
    return lines


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

        def watch(item: Item, view: _Watching = view) -> tuple[Item, Example]:
            view.looks.clear()
            return item, task.example(item, view, example_rng(config.seed, item.address.epoch, item.name))

        item, example = records.make(address, watch)
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
                wrong_text=example.wrong_text if isinstance(example, Paired) else "",
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


def _digest_of(lines: Sequence[Line]) -> str:
    return f"{order_digest([line.name for line in lines], 0):016x}"


def _logged_digest(run: Path, step: int) -> str | None:
    """What the log of a run, or of the run that a checkpoint belongs to, says of a step; None where it says nothing."""
    log = (run if (run / CONFIG).is_file() else run.parent.parent) / ORDER
    if not log.is_file():
        return None
    with log.open(encoding="utf-8") as file:
        for line in file:
            if f'"step": {step},' in line and line.endswith("\n"):
                digest: str = json.loads(line)["digest"]
                return digest
    return None


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
