"""Checkpoints that survive `kill -9` at any moment: written beside, synced, renamed, and checked by checksum when read.

A checkpoint is a folder `step-00000200` in one of two forms. The whole one holds `weights.safetensors` (every parameter and
buffer, bit for bit) and `optimizer.pt` (moments by parameter name); the sharded one holds `tensors/`, which every rank wrote
its pieces into. Either has a `state.json` (small, readable: step, order, config, checksums), written last.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import xxhash
from torch import Tensor

from model.checkpoints import read_tensors
from shards.config import Config
from shards.errors import OstrakaError
from shards.stream import Damage
from trainers.pieces import MODEL, OPTIMIZER, PiecesError, read_pieces

logger = logging.getLogger(__name__)

Form = Literal["whole", "sharded"]

SCHEMAS: Mapping[Form, int] = {"whole": 1, "sharded": 2}
WEIGHTS = "weights.safetensors"
MOMENTS = "optimizer.pt"
PIECES = "tensors"
STATE = "state.json"
BEST = "best"  # a link beside the checkpoints
_NAME = re.compile(r"step-(\d{8,})")
_HASH_BYTES = 1 << 24


class CheckpointError(OstrakaError):
    """A checkpoint is missing, damaged, or belongs to another run than the one at hand."""


class KeepBest(Config):
    """Which checkpoint is kept beside the newest ones, however old it becomes."""

    metric: str = "loss"
    """a name of metrics.jsonl; its mean over the last interval before the checkpoint counts"""
    mode: Literal["min", "max"] = "min"
    """which end of it is good"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What a resumed run must know beside tensors: a few numbers, the same on every rank."""

    step: int  # optimiser steps done
    config: Mapping[str, Any]  # the resolved TrainConfig
    order: Mapping[str, Any]  # StreamState: seed, step, batch size, manifest digests
    sidecars: Mapping[str, str] = field(default_factory=dict)  # stream -> concepts column it reads
    interval: tuple[Mapping[str, float], ...] = ()  # losses of the steps that metrics.jsonl has not seen yet
    damaged: tuple[Damage, ...] = ()  # records whose slots were taken by reserves so far
    metrics: Mapping[str, float] = field(default_factory=dict)  # means over the last whole interval
    recent_losses: tuple[float, ...] = ()  # of the last sound steps, oldest first: what an explosion is measured by
    skipped: tuple[int, ...] = ()  # steps, counted from 1, whose update was left out for a bad loss

    def to_json(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "order": dict(self.order),
            "sidecars": dict(self.sidecars),
            "interval": [dict(values) for values in self.interval],
            "damaged": [asdict(each) for each in self.damaged],
            "metrics": dict(self.metrics),
            "recent_losses": list(self.recent_losses),
            "skipped": list(self.skipped),
            "config": dict(self.config),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint on disk; nothing heavy is loaded yet."""

    path: Path
    state: RunState
    form: Form

    @property
    def step(self) -> int:
        return self.state.step

    @property
    def weights(self) -> Path:
        """The file of all weights, which only a whole checkpoint has; `tensors()` reads either form."""
        return self.path / WEIGHTS

    @property
    def pieces(self) -> Path:
        """The folder of a sharded checkpoint's pieces."""
        return self.path / PIECES

    @property
    def run(self) -> Path:
        """The run folder that this checkpoint lies in."""
        return self.path.parent.parent

    def tensors(self) -> dict[str, Tensor]:
        """Load every parameter and buffer by name, on the CPU.

        Raises:
            CheckpointError: they cannot be read.
        """
        try:
            return read_tensors(self.weights) if self.form == "whole" else read_pieces(self.pieces, MODEL)
        except (PiecesError, ValueError) as error:
            raise CheckpointError(f"{self.path}: {error}") from error

    def optimizer_state(self) -> dict[str, dict[str, Tensor]]:
        """Load the optimiser's moments by parameter name, tensors only, on the CPU."""
        if self.form == "sharded":
            found: dict[str, dict[str, Tensor]] = {}
            for name, moment in read_pieces(self.pieces, OPTIMIZER).items():
                parameter, _, label = name.rpartition("/")
                found.setdefault(parameter, {})[label] = moment
            return found
        loaded: dict[str, dict[str, Tensor]] = torch.load(self.path / MOMENTS, map_location="cpu", weights_only=True)
        return loaded


class CheckpointFolder:
    """The `checkpoints/` of one run. One process publishes; everyone may read."""

    def __init__(self, path: Path, *, keep: int, best: KeepBest | None = None) -> None:
        """Name the folder.

        Args:
            path: the folder, which need not exist.
            keep: how many of the newest checkpoints stay.
            best: which further one stays; unset: none.
        """
        self.path = path
        self.keep = keep
        self.best = best

    def save(
        self,
        state: RunState,
        *,
        write_weights: Callable[[Path], object],
        optimizer_state: Mapping[str, Mapping[str, Tensor]],
    ) -> Path:
        """Write one whole checkpoint so that it is either there in full or not at all, then drop the oldest.

        Args:
            state: what `state.json` says.
            write_weights: writes all parameters and buffers to the path it is given.
            optimizer_state: moments by parameter name.
        """
        unfinished = self.begin(state.step)
        write_weights(unfinished / WEIGHTS)
        torch.save({name: dict(moments) for name, moments in optimizer_state.items()}, unfinished / MOMENTS)
        for name in (WEIGHTS, MOMENTS):
            _sync(unfinished / name)
        checksums = {name: checksum(unfinished / name) for name in (WEIGHTS, MOMENTS)}
        return self.publish(state, form="whole", checksums=checksums)

    def begin(self, step: int) -> Path:
        """Make the folder that a checkpoint of this step is written into, and remove what killed processes left half-written."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.clear_unfinished()
        unfinished = self.unfinished(step)
        unfinished.mkdir(exist_ok=True)  # another rank may have made it again
        return unfinished

    def unfinished(self, step: int) -> Path:
        """Where a checkpoint of this step is written before it is published; the same on every rank."""
        return self.path / f".writing-{_name(step)}"

    def publish(self, state: RunState, *, form: Form, checksums: Mapping[str, str]) -> Path:
        """Make a checkpoint of what was written and synced into the unfinished folder: from here on it counts.

        Args:
            state: what `state.json` says.
            form: of the files.
            checksums: of every file, by its path in the checkpoint.
        """
        unfinished, final = self.unfinished(state.step), self.path / _name(state.step)
        document = {"schema": SCHEMAS[form]} | state.to_json() | {"checksums": dict(checksums)}
        (unfinished / STATE).write_text(json.dumps(document, indent=1), encoding="utf-8")
        _sync(unfinished / STATE)
        for folder in {(unfinished / name).parent for name in (*checksums, STATE)}:
            _sync(folder)
        if final.exists():  # a damaged checkpoint of the same step, or a run that was rewound: move it out of the way
            shutil.rmtree(_set_aside(final))
        unfinished.rename(final)
        _sync(self.path)
        self._drop_old()
        return final

    def latest(self) -> Checkpoint | None:
        """Find the newest complete checkpoint; damaged ones are passed over with a warning, never silently."""
        for path in sorted(self._folders(), key=_step_of, reverse=True):
            try:
                return read_checkpoint(path)
            except CheckpointError as error:
                logger.warning("%s; using the one before it", error)
        return None

    def newest_step(self) -> int:
        """The step of the newest checkpoint by its name, 0 where there is none; nothing is read."""
        return max(map(_step_of, self._folders()), default=0)

    def clear_unfinished(self) -> None:
        """Remove what a killed process left half-written. Only the one publisher calls this."""
        for path in self.path.glob(".writing-*"):
            shutil.rmtree(path, ignore_errors=True)

    def _folders(self) -> Iterator[Path]:
        if self.path.is_dir():
            yield from (
                path
                for path in self.path.iterdir()
                if _NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
            )

    def _drop_old(self) -> None:
        newest_last = sorted(self._folders(), key=_step_of)
        best = self._best_of(newest_last)
        if best is not None:
            self._point_at(best)
        for path in newest_last[: -self.keep]:
            if path != best:
                # Renamed first, so that a kill in the middle of the removal leaves no folder that looks like a checkpoint.
                shutil.rmtree(_set_aside(path), ignore_errors=True)

    def _best_of(self, folders: list[Path]) -> Path | None:
        """The checkpoint with the best value of the metric; of equals the newest, none where none has a finite value."""
        if self.best is None:
            return None
        values = {path: _metric(path, self.best.metric) for path in reversed(folders)}
        known = {path: value for path, value in values.items() if value is not None}
        if not known:
            return None
        return (min if self.best.mode == "min" else max)(known, key=lambda path: known[path])

    def _point_at(self, best: Path) -> None:
        link = self.path / f".writing-{BEST}"
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(best.name)
            link.replace(self.path / BEST)
        except OSError as error:  # a file system without links keeps the checkpoint all the same
            logger.warning(
                "%s: no link to the best checkpoint %s could be made (%s)", self.path, best.name, error.strerror
            )


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and check one checkpoint folder.

    Raises:
        CheckpointError: a file is missing, or its bytes are not those that were written.
    """
    try:
        document = json.loads((path / STATE).read_text(encoding="utf-8"))
        checksums: Mapping[str, str] = document["checksums"]
        forms = {schema: form for form, schema in SCHEMAS.items()}
        if document["schema"] not in forms:
            raise CheckpointError(
                f"{path}: the checkpoint has schema {document['schema']}, this code reads "
                f"{' and '.join(map(str, forms))}; use the code that wrote it"
            )
        state = RunState(
            step=document["step"],
            config=document["config"],
            order=document["order"],
            sidecars=document["sidecars"],
            interval=tuple(document["interval"]),
            # Checkpoints of earlier versions lack these.
            damaged=tuple(Damage(**each) for each in document.get("damaged", ())),
            metrics=document.get("metrics", {}),
            recent_losses=tuple(document.get("recent_losses", ())),
            skipped=tuple(document.get("skipped", ())),
        )
        damaged = [name for name, written in checksums.items() if checksum(path / name) != written]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: the checkpoint is incomplete or damaged ({error})") from error
    if damaged:
        raise CheckpointError(f"{path}: {' and '.join(damaged)} differ from what was written (checksum)")
    return Checkpoint(path=path, state=state, form=forms[document["schema"]])


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


def checksum(path: Path) -> str:
    """Digest a file's bytes (xxh3, 64 bits)."""
    hasher = xxhash.xxh3_64()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def _metric(path: Path, name: str) -> float | None:
    try:
        value = json.loads((path / STATE).read_text(encoding="utf-8")).get("metrics", {}).get(name)
    except (OSError, ValueError):
        return None  # a damaged checkpoint is nobody's best
    return value if value is not None and math.isfinite(value) else None


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _step_of(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None  # callers pass names that matched
    return int(match[1])


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f".writing-old-{path.name}-{os.getpid()}")
    path.rename(aside)
    return aside


def _sync(path: Path) -> None:
    """Force a file's bytes, or a folder's names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
