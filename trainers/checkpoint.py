"""Checkpoints that survive `kill -9` at any moment: written beside, synced, renamed, and checked by checksum when read.

A checkpoint is a folder `step-00000200` with `weights.safetensors` (every parameter and buffer, bit for bit),
`optimizer.pt` (moments by parameter name) and `state.json` (small, readable: step, order, config, checksums).
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash

from shards.errors import OstrakaError
from shards.stream import Damage

logger = logging.getLogger(__name__)

SCHEMA = 1
WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.pt"
STATE = "state.json"
_NAME = re.compile(r"step-(\d{8,})")
_HASH_BYTES = 1 << 24


class CheckpointError(OstrakaError):
    """A checkpoint is missing, damaged, or belongs to another run than the one at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What a resumed run must know beside tensors: a few numbers, the same on every rank."""

    step: int  # optimiser steps done
    config: Mapping[str, Any]  # the resolved TrainConfig
    order: Mapping[str, Any]  # StreamState: seed, step, batch size, manifest digests
    sidecars: Mapping[str, str] = field(default_factory=dict)  # stream -> concepts column it reads
    interval: tuple[Mapping[str, float], ...] = ()  # losses of the steps that metrics.jsonl has not seen yet
    damaged: tuple[Damage, ...] = ()  # records whose slots were taken by reserves so far

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "step": self.step,
            "order": dict(self.order),
            "sidecars": dict(self.sidecars),
            "interval": [dict(values) for values in self.interval],
            "damaged": [asdict(each) for each in self.damaged],
            "config": dict(self.config),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint on disk; nothing heavy is loaded yet."""

    path: Path
    state: RunState

    @property
    def step(self) -> int:
        return self.state.step

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS

    @property
    def run(self) -> Path:
        """The run folder that this checkpoint lies in."""
        return self.path.parent.parent

    def optimizer_state(self) -> dict[str, dict[str, torch.Tensor]]:
        """Load the optimiser's moments by parameter name, tensors only, on the CPU."""
        loaded: dict[str, dict[str, torch.Tensor]] = torch.load(
            self.path / OPTIMIZER, map_location="cpu", weights_only=True
        )
        return loaded


class CheckpointFolder:
    """The `checkpoints/` of one run. One process writes; everyone may read."""

    def __init__(self, path: Path, *, keep: int) -> None:
        self.path = path
        self.keep = keep

    def save(
        self,
        state: RunState,
        *,
        write_weights: Callable[[Path], object],
        optimizer_state: Mapping[str, Mapping[str, torch.Tensor]],
    ) -> Path:
        """Write one checkpoint so that it is either there in full or not at all, then drop the oldest.

        Args:
            state: what `state.json` says.
            write_weights: writes all parameters and buffers to the path it is given.
            optimizer_state: moments by parameter name.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self.clear_unfinished()
        final = self.path / f"step-{state.step:08d}"
        temporary = self.path / f".writing-{final.name}-{os.getpid()}"
        temporary.mkdir()
        write_weights(temporary / WEIGHTS)
        torch.save({name: dict(moments) for name, moments in optimizer_state.items()}, temporary / OPTIMIZER)
        checksums = {name: _checksum(temporary / name) for name in (WEIGHTS, OPTIMIZER)}
        document = state.to_json() | {"checksums": checksums}
        (temporary / STATE).write_text(json.dumps(document, indent=1), encoding="utf-8")
        for name in (WEIGHTS, OPTIMIZER, STATE):
            _sync(temporary / name)
        _sync(temporary)
        if final.exists():  # a damaged checkpoint of the same step, or a run that was rewound: move it out of the way
            shutil.rmtree(_set_aside(final))
        temporary.rename(final)
        _sync(self.path)
        self._drop_oldest()
        return final

    def latest(self) -> Checkpoint | None:
        """Find the newest complete checkpoint; damaged ones are passed over with a warning, never silently."""
        for path in sorted(self._folders(), key=_step_of, reverse=True):
            try:
                return read_checkpoint(path)
            except CheckpointError as error:
                logger.warning("%s; using the one before it", error)
        return None

    def clear_unfinished(self) -> None:
        """Remove what a killed process left half-written. Only the one writer calls this."""
        for path in self.path.glob(".writing-*"):
            shutil.rmtree(path, ignore_errors=True)

    def _folders(self) -> Iterator[Path]:
        if self.path.is_dir():
            yield from (path for path in self.path.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())

    def _drop_oldest(self) -> None:
        for path in sorted(self._folders(), key=_step_of)[: -self.keep]:
            # Renamed first, so that a kill in the middle of the removal leaves no folder that looks like a checkpoint.
            shutil.rmtree(_set_aside(path), ignore_errors=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and check one checkpoint folder.

    Raises:
        CheckpointError: a file is missing, or its bytes are not those that were written.
    """
    try:
        document = json.loads((path / STATE).read_text(encoding="utf-8"))
        checksums: Mapping[str, str] = document["checksums"]
        if document["schema"] != SCHEMA:
            raise CheckpointError(
                f"{path}: the checkpoint has schema {document['schema']}, this code reads {SCHEMA}; use the code that wrote it"
            )
        state = RunState(
            step=document["step"],
            config=document["config"],
            order=document["order"],
            sidecars=document["sidecars"],
            interval=tuple(document["interval"]),
            damaged=tuple(Damage(**each) for each in document.get("damaged", ())),  # older ones did not count
        )
        damaged = [name for name, checksum in checksums.items() if _checksum(path / name) != checksum]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: the checkpoint is incomplete or damaged ({error})") from error
    if damaged:
        raise CheckpointError(f"{path}: {' and '.join(damaged)} differ from what was written (checksum)")
    return Checkpoint(path=path, state=state)


def find_checkpoint(path: Path) -> Checkpoint:
    """Find the checkpoint that a person means by a path: a checkpoint folder, or a run folder (its newest).

    Raises:
        CheckpointError: there is none.
    """
    if (path / STATE).is_file():
        return read_checkpoint(path)
    found = CheckpointFolder(path / "checkpoints", keep=1).latest()
    if found is None:
        raise CheckpointError(
            f"{path}: no complete checkpoint there; give a run folder (with `checkpoints/`) or one `step-…` folder of it"
        )
    return found


def _step_of(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None  # callers pass names that matched
    return int(match[1])


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f".writing-old-{path.name}-{os.getpid()}")
    path.rename(aside)
    return aside


def _checksum(path: Path) -> str:
    hasher = xxhash.xxh3_64()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def _sync(path: Path) -> None:
    """Force a file's bytes, or a folder's names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
