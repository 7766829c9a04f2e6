"""What every trial of `benchmarks.chaos` is held to: the undisturbed dataset, and what a reader may never see before it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.cli import main as command
from shards.errors import DatasetError
from shards.reader import open_dataset
from shards.storage import is_temporary

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Raw files, the command that converts them, and the dataset that it makes when nobody disturbs it."""

    words: tuple[str, ...]
    grown: tuple[str, ...]  # the same command after more raw items have come
    operations: int  # on the disk, of the undisturbed command
    first: dict[str, bytes]  # the dataset of `words`, by file
    expected: dict[str, bytes]  # the dataset after `grown` was appended


def visible(folder: Path) -> dict[str, bytes]:
    """Every file that a reader could take for data: all but temporaries."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not is_temporary(path.name))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def problem_with(output: Path, world: World) -> str | None:
    """What a reader could be misled by in an unfinished dataset; None where there is nothing."""
    for name, data in visible(output).items():
        if data not in (world.first.get(name), world.expected.get(name)):
            return f"{name} is visible and wrong"
    try:
        open_dataset(output)
    except DatasetError:
        return None
    found = visible(output)
    complete = (world.first, world.expected)
    cards = [tree for tree in complete if tree["dataset.json"] == found.get("dataset.json")]
    if not any(found.get(name) == data for tree in cards for name, data in tree.items() if name == "manifest.parquet"):
        return "a dataset opens whose card and manifest are of different moments"
    if not any(all(found.get(name) == data for name, data in tree.items() if "/" in name) for tree in cards):
        return "a dataset opens before it is complete"
    return None


def finish(words: Sequence[str], output: Path, expected: dict[str, bytes]) -> str | None:
    """Run the command undisturbed, and compare; None where everything is as it should be."""
    with contextlib.redirect_stdout(io.StringIO()):
        code = command([*words, f"output={output}"])
    if code != 0:
        return f"the command ends with {code}"
    found = {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    if found != expected:
        wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        return f"{len(wrong)} files differ from the undisturbed dataset, the first is {wrong[0]}"
    return None
