"""Weights on disk: reading files of either format safely, filling a module, and saying what did not fit."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from model.positions import resize_positions

SHOWN = 8  # names of each list that a summary spells out


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did, by name."""

    loaded: tuple[str, ...]  # ours
    missing: tuple[str, ...]  # ours that kept their fresh values
    unexpected: tuple[str, ...]  # the file's that nothing took
    resized: tuple[str, ...]  # ours that were position tables of another grid
    kept: tuple[str, ...] = ()  # queues of another length, which kept their fresh values

    def __str__(self) -> str:
        return "; ".join(self.lines())

    def lines(self) -> list[str]:
        """Say it in one line per kind, the first names of each spelt out."""
        lines = [f"{len(self.loaded)} tensors loaded"]
        for title, names in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("resized", self.resized),
            ("queues of another size, left fresh", self.kept),
        ):
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                lines.append(f"{len(names)} {title}: {', '.join(names[:SHOWN])}{more}")
        return lines


@runtime_checkable
class HasPositionGrids(Protocol):
    """A module that can be filled from a checkpoint of another picture size."""

    def position_grids(self) -> dict[str, int]:
        """Say which tensors are learned position tables, and patches per side of their grids."""
        ...


@runtime_checkable
class AdoptsWeights(Protocol):
    """A module that begins with the weights of an earlier stage, some of which have other names there."""

    def adopt(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give an earlier stage's tensors the names they have here; own names stay."""
        ...


def save_weights(module: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write every parameter and persistent buffer of a module, bit for bit, as safetensors.

    Args:
        module: whose `state_dict` is written, under its own names; a tensor that is tied is written once per name.
        path: the file; its folder must exist.
        metadata: words kept in the file's header.
    """
    save_tensors(module.state_dict(), path, metadata)


def save_tensors(tensors: Mapping[str, Tensor], path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors under their names, bit for bit, as safetensors; see `save_weights`."""
    from safetensors.torch import save_file

    copied = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(copied, str(path), metadata=dict(metadata or {}))


def load_weights(module: nn.Module, path: str | Path) -> ImportReport:
    """Fill a module from a file under its own names.

    Position tables of another grid are resized where the module says which they are.

    Raises:
        ValueError: the file cannot be read, or a tensor has another shape and is neither a position table nor a queue.
    """
    return fill_own(module, read_tensors(path))


def load_earlier_weights(module: nn.Module, path: str | Path) -> ImportReport:
    """Fill a module from a file of an earlier stage, say a fine-tuned model from a pretrained one.

    Raises:
        ValueError: as `load_weights`.
    """
    return fill_from_earlier(module, read_tensors(path))


def fill_own(module: nn.Module, tensors: Mapping[str, Tensor]) -> ImportReport:
    """Fill a module from tensors under its own names; see `load_weights`."""
    return fill(module, tensors, grids=module.position_grids() if isinstance(module, HasPositionGrids) else {})


def fill_from_earlier(module: nn.Module, tensors: Mapping[str, Tensor]) -> ImportReport:
    """Fill a module from tensors of an earlier stage; see `load_earlier_weights`."""
    return fill_own(module, module.adopt(tensors) if isinstance(module, AdoptsWeights) else tensors)


def read_tensors(path: str | Path, *, allowed: Sequence[type] = ()) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file or a torch file (whose `model` or `state_dict` entry is taken).

    Torch files are pickles, so only tensors and plain containers are unpickled, never code.

    Args:
        path: the file.
        allowed: further classes that may occur beside the tensors (say `argparse.Namespace` in an old checkpoint).

    Raises:
        ValueError: the file is missing or damaged, holds a class that is not allowed, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        problem = (
            "is a folder; give the file of weights in it" if path.is_dir() else "no such weights file; check the path"
        )
        raise ValueError(f"{path}: {problem}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors: dict[str, Tensor] = load_file(str(path))
        except SafetensorError as error:
            raise ValueError(f"{path}: not a whole safetensors file ({error}); copy or save it again") from error
        return tensors
    try:
        with torch.serialization.safe_globals(list(allowed)):
            # Mapped, not read: released files hold twice the model's size in optimiser moments that nobody asks for.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # Torch's own words would advise to run whatever code the file holds.
        raise ValueError(
            f"{path}: cannot be read as tensors alone: it is no torch file, or holds code or objects beside them, which are "
            "never run; save its tensors as safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or "it ends too early"
        raise ValueError(f"{path}: cannot be read as tensors alone ({reason}); copy or save it again") from error
    return _tensors(content, path)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], *, grids: Mapping[str, int] | None = None) -> ImportReport:
    """Copy tensors into a module by name, and report all that did not fit.

    Args:
        module: parameters and persistent buffers are filled in place.
        tensors: under the module's own names.
        grids: which names are position tables, and patches per side of the grid the module wants.

    Raises:
        ValueError: a parameter has another shape and is no position table.
    """
    grids = grids or {}
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    loaded, missing, resized, kept = [], [], [], []
    with torch.no_grad():
        for name, target in module.state_dict(keep_vars=True).items():
            if name not in tensors:
                missing.append(name)
                continue
            value = tensors[name]
            if value.shape != target.shape and name in grids and value.ndim == target.ndim:
                value = resize_positions(value, grids[name])
                resized.append(name)
            if value.shape != target.shape:
                if name in parameters:
                    raise ValueError(
                        f"{name} has shape {tuple(value.shape)} in the file and {tuple(target.shape)} in the model; "
                        "set the config to the file's sizes; where words differ, take the vocabulary it was trained with"
                    )
                kept.append(name)  # a queue of another length: refilled within its length in steps
                continue
            target.copy_(value)
            loaded.append(name)
    return ImportReport(
        loaded=tuple(loaded),
        missing=tuple(missing),
        unexpected=tuple(sorted(set(tensors) - set(loaded) - set(kept))),
        resized=tuple(resized),
        kept=tuple(kept),
    )


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: holds {type(content).__name__} where names with tensors are expected")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{path}: holds no tensors under names; give the file that holds the model's state")
    return tensors


def average(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float] | None = None) -> dict[str, Tensor]:
    """Average checkpoints name by name (model soups; Wortsman et al., 2022); of two, that is an interpolation.

    Args:
        states: tensors by name; the first says which names there are.
        weights: one per state, adding up to 1; negative ones extrapolate. Unset: all the same.

    Returns:
        The averages in each tensor's own precision, computed in double. A name that a later state lacks is averaged over
        those that have it. Whole numbers (pointers, identities) are taken from the first.

    Raises:
        ValueError: no states, weights that do not fit, or a tensor of another shape.
    """
    shares = list(weights) if weights is not None else [1 / max(1, len(states))] * len(states)
    if not states or len(shares) != len(states) or not abs(sum(shares) - 1) <= 1e-6:
        raise ValueError(f"{len(states)} checkpoints with weights {shares}: give one weight each, adding up to 1")
    averaged: dict[str, Tensor] = {}
    for name, first in states[0].items():
        having = [(state[name], share) for state, share in zip(states, shares, strict=True) if name in state]
        if any(value.shape != first.shape for value, _ in having):
            raise ValueError(f"{name} has another shape in one of the checkpoints; average checkpoints of one model")
        total = sum(share for _, share in having)
        if not first.is_floating_point() or total == 0:
            averaged[name] = first.clone()
            continue
        mixed = torch.zeros_like(first, dtype=torch.float64)
        for value, share in having:
            mixed += value.double() * (share / total)
        averaged[name] = mixed.to(first.dtype)
    return averaged
