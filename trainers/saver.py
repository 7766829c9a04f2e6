"""Writing a run's checkpoints: whole ones by rank 0 at once, sharded ones by every rank while the training goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from model.checkpoints import save_tensors
from model.family import Family
from trainers.assembly import load_exactly
from trainers.checkpoint import PIECES, Checkpoint, CheckpointError, CheckpointFolder, Form, RunState, checksum
from trainers.distributed import Group
from trainers.optim import load_optimizer_state, optimizer_state_by_name
from trainers.parallel import whole
from trainers.pieces import MODEL, OPTIMIZER, PiecesError, fill_from_pieces, piece_sizes, write_pieces

logger = logging.getLogger(__name__)


class Saver:
    """Writes checkpoints of a family and its optimiser. Every rank has one and calls it at the same steps."""

    def __init__(self, folder: CheckpointFolder, group: Group, *, form: Form) -> None:
        """Take the folder, which every rank sees.

        Args:
            folder: of the run.
            group: all ranks.
            form: in which checkpoints are written.
        """
        self._folder, self._group, self._form = folder, group, form
        # Words of a write in the background must not mix with those of the training.
        aside = form == "sharded" and group.world > 1
        self._aside: dist.ProcessGroup | None = dist.new_group(backend="gloo") if aside else None
        self._writing: threading.Thread | None = None
        self._failure: Exception | None = None

    def save(self, state: RunState, family: Family, optimizer: torch.optim.Optimizer) -> None:
        """Write a checkpoint, or begin to; a former one that is still being written is waited for.

        Raises:
            CheckpointError: the former one could not be written.
            PeerError: rank 0 could not write.
        """
        weights: Mapping[str, Tensor] = family.state_dict()
        moments = optimizer_state_by_name(family, optimizer)
        if self._form == "sharded":
            self.settle()
            self._begin(state, flat_state(weights, moments))
            return
        weights = whole(weights)
        moments = {name: whole(labelled) for name, labelled in moments.items()}
        with self._group.together():
            if self._group.is_main:
                self._folder.save(
                    state, write_weights=lambda path: save_tensors(weights, path), optimizer_state=moments
                )

    def settle(self) -> None:
        """Wait until what was begun is a checkpoint.

        Raises:
            CheckpointError: it could not be written.
        """
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        self.check()

    def check(self) -> None:
        """Say so where a write in the background failed; waits for nothing.

        Raises:
            CheckpointError: it did.
        """
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise CheckpointError(
                f"{self._folder.path}: a checkpoint could not be written ({type(failure).__name__}: {failure}); the one "
                "before it is complete, and the same command goes on from there"
            ) from failure

    def _begin(self, state: RunState, tensors: Mapping[str, Tensor]) -> None:
        if self._group.is_main:
            self._folder.begin(state.step)
        pieces = self._folder.unfinished(state.step) / PIECES
        written = write_pieces(tensors, pieces, talk=self._aside, alone=self._group.world == 1)
        # A daemon: a run that fails elsewhere does not wait for a checkpoint that can no longer be completed.
        self._writing = threading.Thread(target=self._finish, args=(written, state, pieces), daemon=True)
        self._writing.start()

    def _finish(self, written: Future[Any], state: RunState, pieces: Path) -> None:
        """Wait for all pieces, digest this rank's own, and let rank 0 publish."""
        try:
            written.result()
            own = [*pieces.glob(f"__{self._group.rank}_*"), *([pieces / ".metadata"] if self._group.is_main else [])]
            checksums = {f"{PIECES}/{path.name}": checksum(path) for path in own}
            if self._aside is not None:
                told: list[Any] = [None] * self._group.world
                dist.all_gather_object(told, checksums, group=self._aside)
                checksums = {name: value for each in told for name, value in each.items()}
            if self._group.is_main:
                self._folder.publish(state, form="sharded", checksums=checksums)
        except Exception as error:
            self._failure = error


def restore_before_layout(family: Family, checkpoint: Checkpoint) -> None:
    """Put the weights of a whole checkpoint into a family that is not yet laid out on its ranks.

    Raises:
        CheckpointError: they do not fit.
    """
    if checkpoint.form == "whole":
        load_exactly(family, checkpoint)


def restore_after_layout(
    family: Family, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint, group: Group
) -> None:
    """Put in what is left: the moments of a whole checkpoint; of a sharded one this rank's parts of everything.

    Raises:
        CheckpointError: the checkpoint is of another model.
    """
    if checkpoint.form == "whole":
        load_optimizer_state(family, optimizer, checkpoint.optimizer_state(), where=str(checkpoint.path))
        return
    try:
        _make_room(family, optimizer, checkpoint.pieces)
        tensors = flat_state(family.state_dict(), optimizer_state_by_name(family, optimizer))
        fill_from_pieces(tensors, checkpoint.pieces, talk=group.talk, alone=group.world == 1)
    except PiecesError as error:
        raise CheckpointError(f"{checkpoint.path} does not fit this model: {error}") from error


def flat_state(weights: Mapping[str, Tensor], moments: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Name weights, buffers and moments as sharded checkpoints do."""
    flat = {f"{MODEL}{name}": tensor.detach() for name, tensor in weights.items()}
    for name, labelled in moments.items():
        flat |= {f"{OPTIMIZER}{name}/{label}": moment for label, moment in labelled.items()}
    return flat


def _make_room(family: Family, optimizer: torch.optim.Optimizer, pieces: Path) -> None:
    """Give the optimiser the moments that the pieces hold, still empty, each laid out as its parameter."""
    parameters = dict(family.named_parameters())
    # As the optimiser keeps its count of steps: a fused one beside the parameter, the others on the CPU.
    beside = bool(optimizer.defaults.get("fused"))
    for entry, size in piece_sizes(pieces).items():
        name, _, label = entry.removeprefix(OPTIMIZER).rpartition("/")
        if not entry.startswith(OPTIMIZER) or name not in parameters:
            continue  # what has no place here is named when the pieces are read
        parameter = parameters[name]
        room = torch.zeros_like(parameter, requires_grad=False)
        if not size:
            room = torch.zeros((), device=parameter.device if beside else "cpu")
        optimizer.state[parameter][label] = room
