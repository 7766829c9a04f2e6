"""`export`: a run's weights under the names of the family's released files, for the authors' code and others'."""

from __future__ import annotations

import importlib
from pathlib import Path

from shards.config import Config as BaseConfig
from shards.errors import ConfigError
from trainers.config import LocalPath

HELP = "a run's weights in the layout of the family's released files"


class Config(BaseConfig):
    """What goes where."""

    checkpoint: str
    """a run folder (its newest checkpoint) or one checkpoint folder"""
    output: LocalPath
    """the file: `.safetensors` holds the tensors alone; `.pth` and `.pt` are torch files with them under `model`, as released"""


def run(config: Config, *, dry_run: bool) -> int:
    """Write the file, and print how many tensors it holds."""
    import torch
    from safetensors.torch import save_file

    from trainers.assembly import open_run
    from trainers.results import ensure_writable

    path = Path(config.output)
    if path.suffix not in {".safetensors", ".pth", ".pt"}:
        raise ConfigError(f"output={config.output!r} ends with none of .safetensors, .pth and .pt; choose one")
    if path.exists():
        raise ConfigError(f"output={config.output!r} exists; give another name or remove it")
    opened = open_run(config.checkpoint, device=torch.device("cpu"))
    kind = str(opened.config.family["kind"])
    tensors = importlib.import_module(f"model.families.{kind}.published").export_published(opened.family)
    if dry_run:
        print(f"would write {len(tensors)} tensors of {opened.checkpoint.path} to {path}")
        return 0
    ensure_writable(path.parent)
    unfinished = path.with_name(f".{path.name}.unfinished")
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in tensors.items()}, str(unfinished))
    else:
        torch.save({"model": tensors}, unfinished)
    unfinished.replace(path)
    print(f"{len(tensors)} tensors of {opened.checkpoint.path} -> {path}")
    return 0
