"""`lineage`: which records a training step was made of, how each picture was cropped, and against which caption it was matched."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal

from shards.config import Config as BaseConfig

HELP = "names every record of a training step, with its crop and its wrong caption, computed from the order"


class Config(BaseConfig):
    """Which step of which run."""

    run: str
    """the training's output, or one of its checkpoints"""
    step: int
    """as the log counts, from 1"""
    decode: bool = False
    """also decode the pictures, so that a slot whose picture is damaged names its reserve; done anyway where the log asks for it"""
    form: Literal["table", "jsonl"] = "table"
    """a line of text per slot, or a JSON object"""


def run(config: Config, *, dry_run: bool) -> int:
    """Print one line per slot of the global batch."""
    from trainers.lineage import lineage

    if dry_run:
        print(f"would compute step {config.step} of {config.run}; nothing is written either way")
        return 0

    for line in lineage(config.run, config.step, decode=config.decode):
        print(json.dumps(dataclasses.asdict(line), default=_plain) if config.form == "jsonl" else line)
    return 0


def _plain(value: object) -> object:
    return value.tolist() if hasattr(value, "tolist") else str(value)
