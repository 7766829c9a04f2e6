"""A run folder of weights that were not trained here: ready to start from, to evaluate and to resume nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from model.checkpoints import ImportReport, save_weights
from model.family import Family
from model.tokenizer import WordPiece
from shards.config import Config
from shards.errors import ConfigError
from shards.remote import CacheConfig
from trainers.checkpoint import CheckpointFolder, RunState
from trainers.config import StreamConfig
from trainers.results import ensure_writable

VOCABULARY = Path("tokenizer") / "vocab.txt"  # as in every run folder
REPORT = "import.json"


class ImportedConfig(Config):
    """What stands in a checkpoint's state where a trained run has its `TrainConfig`."""

    imported_from: tuple[str, ...]
    """the files or runs that the weights were made of"""
    family: dict[str, Any]
    task: dict[str, Any] = Field(default_factory=dict)
    """what the weights are for; `kind` names a file of trainers/tasks/"""
    streams: dict[str, StreamConfig] = Field(default_factory=dict, max_length=0)
    """none: nothing was read here"""
    cache: CacheConfig = CacheConfig()
    """of remote datasets; without streams there is nothing to keep"""


def is_imported(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's config is of an imported run."""
    return "imported_from" in config


def write_imported(
    run: Path, family: Family, config: ImportedConfig, tokenizer: WordPiece, *, report: ImportReport | None = None
) -> Path:
    """Write a run folder with one checkpoint of step 0, the vocabulary, and what the import found.

    Args:
        run: the folder; it must hold no checkpoints yet.
        family: whose weights are written.
        config: what the checkpoint says of itself.
        tokenizer: the vocabulary that the weights were trained with.
        report: written whole to `import.json`.

    Returns:
        The checkpoint's folder.

    Raises:
        ConfigError: the folder holds checkpoints, or cannot be written.
    """
    folder = run / "checkpoints"
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"output={str(run)!r} holds checkpoints already; give a folder of its own")
    ensure_writable(run)
    (run / VOCABULARY).parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(run / VOCABULARY)
    if report is not None:
        lists = {name: list(getattr(report, name)) for name in report.__slots__}
        (run / REPORT).write_text(json.dumps(lists, indent=1) + "\n", encoding="utf-8")
    return CheckpointFolder(folder, keep=1).save(
        RunState(step=0, config=config.model_dump(mode="json"), order={}),
        write_weights=lambda path: save_weights(family, path),
        optimizer_state={},
    )
