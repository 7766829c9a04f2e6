"""What `python -m jobs <verb> --help` prints: the keys of a verb and, where the words name one, those of a kind.

A kind is a file of a room (a raw format, a transform, a task, a model family), so its keys are known only when it is named:
`python -m jobs shards source.kind=table --help`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from jobs.config import describe_keys, preset_names, read_values, value_text
from shards.config import nearest
from shards.errors import ConfigError

PACKAGES = {
    "source": "pipelines.sources",
    "transforms": "pipelines.transforms",
    "task": "trainers.tasks",
    "family": "model.families",
}
CHOSEN_BY = {
    "shards": ("source", "transforms"),
    "annotate": ("source",),
    "train": ("task", "family"),
    "evaluate": ("task",),
    "predict": ("task",),
}
ROOMY = 100  # columns of a terminal from which on keys, defaults and meanings stand side by side
LONGEST_DEFAULT = 28


def print_help(verb: str, says: str, model: type[BaseModel], words: Sequence[str]) -> None:
    """Explain a verb on standard output.

    Args:
        verb: its name.
        says: its line of help.
        model: its config.
        words: what else was written: a preset, whose values are shown in place of the defaults, and overrides.

    Raises:
        ConfigError: the words name a preset or a kind that there is not.
    """
    out = Console(highlight=False)
    out.print(f"usage: python -m jobs {verb} [PRESET] [dotted.key=value …] [--dry-run]", markup=False, soft_wrap=True)
    out.print(f"{says}\n", markup=False)
    if presets := preset_names(verb):
        out.print(f"presets: {', '.join(presets)}\n", markup=False)
    values = read_values(words, verb=verb)
    _print_keys(out, describe_keys(model), values)
    for key in CHOSEN_BY.get(verb, ()):
        out.print()
        named = list(_named(values.get(key)))
        for place, kind in named:
            _print_kind(out, key, f"{key}.{place}" if place else key, kind, values)
        if not named:
            asked = f"'{key}=[{{kind: <kind>}}]'" if key == "transforms" else f"{key}.kind=<kind>"
            out.print(f"kinds of `{key}`: {', '.join(kinds_of(key))}", markup=False)
            out.print(f"`python -m jobs {verb} {asked} --help` explains the keys of one.", markup=False)


def kinds_of(key: str) -> list[str]:
    """List the kinds of a key by the files of its room."""
    return sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(PACKAGES[key]).__path__))


def _named(value: Any) -> Iterator[tuple[str, str]]:
    """Yield (position in a list or nothing, kind) of what a key's value names."""
    if isinstance(value, Mapping) and value.get("kind") is not None:
        yield "", str(value["kind"])
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from ((str(number), kind) for _, kind in _named({"kind": item} if isinstance(item, str) else item))


def _print_kind(out: Console, key: str, place: str, kind: str, values: Mapping[str, Any]) -> None:
    if kind not in (known := kinds_of(key)):
        raise ConfigError(f"{place}.kind: there is no kind {kind!r}: {nearest(kind, known)}")
    module = importlib.import_module(f"{PACKAGES[key]}.{kind}")
    out.print(f"{place}.kind={kind}", style="bold", markup=False)
    for text in (module.__doc__, module.Config.__doc__):
        if text:
            out.print(inspect.cleandoc(text), markup=False)
    out.print()
    rows = (row for row in describe_keys(module.Config, f"{place}.") if row[0] != f"{place}.kind")
    _print_keys(out, rows, values)


def _print_keys(out: Console, rows: Iterator[tuple[str, str, str]], values: Mapping[str, Any]) -> None:
    """One row per key where there is room for three columns, else the meaning below its key."""
    shown = [(key, _given(values, key) or default, meaning) for key, default, meaning in rows]
    if out.width < ROOMY:
        for key, default, meaning in shown:
            out.print(f"  [bold]{escape(key)}[/]  {escape(default)}", soft_wrap=True)
            if meaning:
                out.print(Padding(escape(meaning), (0, 0, 0, 6)))
        return
    table = Table(box=None, header_style="", padding=(0, 2))
    table.add_column("key", no_wrap=True)
    table.add_column("default", max_width=LONGEST_DEFAULT, overflow="fold")
    table.add_column("meaning", overflow="fold")
    for row in shown:
        table.add_row(*map(escape, row))
    out.print(table)


def _given(values: Mapping[str, Any], key: str) -> str | None:
    """The value that a dotted key was given, as it would be typed; None where it was given none."""
    here: Any = values
    for part in key.split("."):
        if isinstance(here, list):
            here = dict(enumerate(here)).get(int(part)) if part.isdecimal() else None
        else:
            here = here.get(part) if isinstance(here, Mapping) else None
    return None if here is None else value_text(here)
