"""Tensors of a run in pieces: each rank writes its own, and they are read into whatever parts the next run is cut into.

The format is torch.distributed.checkpoint's. What is saved is a flat mapping from names such as `model/student.image.positions`
and `optimizer/<parameter>/exp_avg` to tensors. A tensor that is the same on all ranks is written by one of them.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

# A lone process is meant to be alone.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")

MODEL = "model/"
OPTIMIZER = "optimizer/"

# What the table of contents is made of, and nothing else: a pickle may name any function of the machine and have it called.
_KNOWN = {
    "torch.distributed.checkpoint.metadata": {
        *("Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties", "ChunkStorageMetadata"),
        *("MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))},
    "collections": {"OrderedDict"},
    "pathlib": {"Path", "PosixPath"},
    "builtins": {"set", "frozenset"},
}


class PiecesError(ValueError):
    """The pieces are incomplete, damaged, or not those of the tensors that are to be filled."""


def write_pieces(
    tensors: Mapping[str, Tensor], path: Path, *, talk: dist.ProcessGroup | None, alone: bool
) -> Future[Any]:
    """Begin to write; the tensors may change as soon as this returns. Every rank must call it with the same names.

    Args:
        tensors: of this rank; parts of sharded ones are DTensors.
        path: a folder that every rank sees; made where it is missing.
        talk: a group that speaks gloo and that nobody else talks over meanwhile.
        alone: whether there is no other rank.

    Returns:
        What ends when all ranks have written theirs; its `result()` raises what went wrong.
    """
    began = async_save(dict(tensors), storage_writer=FileSystemWriter(path), process_group=talk, no_dist=alone)
    assert isinstance(
        began, Future
    )  # the default stager copies before it returns, so there is but one thing to wait for
    return began


def fill_from_pieces(tensors: Mapping[str, Tensor], path: Path, *, talk: dist.ProcessGroup | None, alone: bool) -> None:
    """Fill tensors in place, whole ones and parts alike. Every rank must call it.

    Raises:
        PiecesError: a name is missing on either side, or a tensor has another shape.
    """
    sizes = piece_sizes(path)
    if sizes.keys() != tensors.keys():
        odd = sorted(sizes.keys() ^ tensors.keys())
        raise PiecesError(
            f"{path}: {len(odd)} tensors are only in the checkpoint or only in the model, first {odd[0]!r}"
        )
    other = [name for name, tensor in tensors.items() if tensor.shape != sizes[name]]
    if other:
        name = other[0]
        raise PiecesError(f"{path}: {name} has shape {tuple(sizes[name])} there and {tuple(tensors[name].shape)} here")
    load(dict(tensors), storage_reader=_Reader(path), process_group=talk, no_dist=alone)


def read_pieces(path: Path, prefix: str) -> dict[str, Tensor]:
    """Read whole tensors on the CPU, by this process alone.

    Args:
        path: the folder.
        prefix: which ones, `MODEL` or `OPTIMIZER`; it is cut off their names.

    Raises:
        PiecesError: the folder holds no complete set.
    """
    wanted = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in _contents(path).state_dict_metadata.items()
        if name.startswith(prefix) and isinstance(entry, TensorStorageMetadata)
    }
    if wanted:
        load(dict(wanted), storage_reader=_Reader(path), no_dist=True)
    return {name.removeprefix(prefix): tensor for name, tensor in wanted.items()}


def piece_sizes(path: Path) -> dict[str, torch.Size]:
    """Say which tensors there are, and how large each is as a whole.

    Raises:
        PiecesError: the folder holds no table of contents that can be read.
    """
    entries = _contents(path).state_dict_metadata
    return {name: entry.size for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}


class _Contents(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _KNOWN.get(module, ()):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no table of contents needs")
        return super().find_class(module, name)


class _Reader(FileSystemReader):
    """Reads a table of contents without running anything in it."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with Path(self.path, ".metadata").open("rb") as file:
            contents: Metadata = _Contents(file).load()
        if contents.storage_meta is not None:
            contents.storage_meta.load_id = self.load_id
        return contents


def _contents(path: Path) -> Metadata:
    try:
        return _Reader(path).read_metadata()
    except (OSError, EOFError, pickle.UnpicklingError, AttributeError) as error:
        raise PiecesError(f"{path}: its table of contents cannot be read ({error})") from error
