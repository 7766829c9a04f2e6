"""`average`: several checkpoints of one model become one, by a uniform or weighted mean of their weights."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from shards.config import Config as BaseConfig
from shards.errors import ConfigError
from trainers.config import LocalPath

HELP = "uniform or weighted mean of checkpoints' weights; of two, their interpolation"


class Config(BaseConfig):
    """What is averaged, and how."""

    checkpoints: tuple[str, ...] = Field(min_length=2)
    """run folders (their newest checkpoints) or checkpoint folders, of one model and vocabulary"""
    weights: tuple[float, ...] | None = None
    """one per checkpoint, adding up to 1; unset: all the same. [0.7, 0.3] of two interpolates"""
    output: LocalPath
    """the run folder to make; `train init=` and `evaluate checkpoint=` take it"""


def run(config: Config, *, dry_run: bool) -> int:
    """Average, and print where the result lies."""
    import torch

    from model.checkpoints import average, fill
    from model.tokenizer import load_tokenizer
    from trainers.assembly import VOCABULARY, open_run
    from trainers.imported import ImportedConfig, write_imported

    runs = [open_run(path, device=torch.device("cpu")) for path in config.checkpoints]
    first = runs[0]
    words = (first.checkpoint.run / VOCABULARY).read_bytes()
    for path, other in zip(config.checkpoints, runs, strict=True):
        if other.config.family != first.config.family:
            raise ConfigError(
                f"checkpoints: the family of {path} is configured otherwise than {config.checkpoints[0]}'s"
            )
        if (other.checkpoint.run / VOCABULARY).read_bytes() != words:
            raise ConfigError(f"checkpoints: {path} has another vocabulary than {config.checkpoints[0]}")
    try:
        averaged = average([each.family.state_dict() for each in runs], config.weights)
    except ValueError as error:
        raise ConfigError(f"weights: {error}") from error
    names = ", ".join(f"step {each.checkpoint.step:,} of {each.checkpoint.run}" for each in runs)
    if dry_run:
        print(f"would average {names} -> {config.output}")
        return 0
    fill(first.family, averaged)
    imported = ImportedConfig(
        imported_from=tuple(str(each.checkpoint.path) for each in runs),
        family=dict(first.config.family),
        task=first.config.task,
    )
    written = write_imported(
        Path(config.output), first.family, imported, load_tokenizer(first.checkpoint.run / VOCABULARY)
    )
    print(f"average of {names} -> {written}")
    return 0
