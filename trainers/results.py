"""What an evaluation leaves in its folder, written so that the scores are there only when everything is."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shards.errors import ConfigError, OstrakaError

SCORES = "scores.json"
PREDICTIONS = "predictions.jsonl"
SUBMISSION = "submission.json"


def write_results(
    output: Path, *, scores: Mapping[str, Any], predictions: Iterable[Mapping[str, Any]], submission: str | None = None
) -> None:
    """Write predictions, what a server takes, and the scores last: they say that the evaluation is complete.

    Raises:
        OstrakaError: nothing can be written there.
    """
    write_whole(output / PREDICTIONS, as_lines(predictions))
    if submission is not None:
        write_whole(output / SUBMISSION, [submission])
    write_whole(output / SCORES, [json.dumps(scores, indent=1) + "\n"])


def ensure_writable(folder: Path, *, key: str = "output") -> None:
    """Find out before the work starts that what it finds cannot be kept.

    Args:
        folder: where it will lie; made where it is not there yet.
        key: the config key that named it.

    Raises:
        ConfigError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"{key}: {str(folder)!r} cannot be written ({error.strerror or error}); choose another folder"
        ) from error


def as_lines(rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """One JSON object a line."""
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_whole(path: Path, parts: Iterable[str]) -> None:
    """Write a text beside its place and rename it, so that a file of that name is always whole.

    Raises:
        OstrakaError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w", encoding="utf-8") as file:
            file.writelines(parts)
        unfinished.replace(path)
    except OSError as error:
        raise OstrakaError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error
