"""The command line: `python -m jobs <verb> [PRESET] [dotted.key=value …] [--dry-run]`.

A verb is a module of `jobs/verbs/` with `HELP`, `Config` and `run(config, *, dry_run) -> int`; its file name is its name, and only
the verb that was asked for is imported.
"""

from __future__ import annotations

import ast
import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from jobs.config import describe_keys, dump_config, load_config, preset_names
from jobs.progress import set_up_logging
from shards.config import nearest
from shards.errors import ConfigError, InputError, OstrakaError

logger = logging.getLogger(__name__)

VERBS = Path(__file__).parent / "verbs"
USAGE = "usage: python -m jobs <verb> [PRESET] [dotted.key=value …] [--dry-run] [--verbose] [--help]"
DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


class Verb(Protocol):
    """What a module of `jobs/verbs/` holds."""

    HELP: str
    Config: type[BaseModel]

    def run(self, config: BaseModel, *, dry_run: bool) -> int: ...


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong usage or config, 130 interrupted."""
    words = [word for word in arguments if not word.startswith("-")]
    flags = {word for word in arguments if word.startswith("-")}
    set_up_logging(verbose="--verbose" in flags)
    try:
        unknown = flags - {"--dry-run", "--help", "-h", "--verbose"}
        if unknown:
            raise ConfigError(f"unknown flag {min(unknown)!r}; {USAGE}")
        wants_help = bool(flags & {"--help", "-h"})
        if not words:
            _print_verbs()
            return DONE if wants_help else WRONG_USAGE
        name, *rest = words
        verb = load_verb(name)
        if wants_help:
            _print_help(name, verb)
            return DONE
        preset = rest.pop(0) if rest and "=" not in rest[0] else None
        config = load_config(verb.Config, preset, rest, verb=name)
        if "--dry-run" in flags:
            print(dump_config(config), end="", flush=True)
        return verb.run(config, dry_run="--dry-run" in flags)
    except (ConfigError, InputError) as error:
        logger.error("error: %s", error)
        return WRONG_USAGE
    except KeyboardInterrupt:
        logger.error("interrupted: nothing that was committed is lost; the same command goes on from here")
        return INTERRUPTED
    except Exception as error:
        if not _is_for_people(error):
            raise
        logger.error("error: %s", error)
        return FAILED


def _is_for_people(error: Exception) -> bool:
    """Whether an error carries a sentence for the person at the terminal: ours, or one that the model room defines."""
    return isinstance(error, OstrakaError) or type(error).__module__.partition(".")[0] == "model"


def verb_names() -> list[str]:
    """List the verbs by their files."""
    return sorted(path.stem.rstrip("_") for path in VERBS.glob("*.py") if path.stem != "__init__")


def load_verb(name: str) -> Verb:
    """Import the module of one verb. `import` is a keyword, so its module is `import_`; the verb keeps its name."""
    if name not in verb_names():
        raise ConfigError(f"unknown verb {name!r}: {nearest(name, verb_names())}")
    module = name if (VERBS / f"{name}.py").is_file() else f"{name}_"
    return cast(Verb, importlib.import_module(f"jobs.verbs.{module}"))


def _help_line(name: str) -> str:
    """Read a verb's HELP without importing it, so that listing the verbs stays instant."""
    path = VERBS / f"{name}.py"
    tree = ast.parse((path if path.is_file() else VERBS / f"{name}_.py").read_text(encoding="utf-8"))
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "HELP" for target in targets):
            value = cast("ast.Assign | ast.AnnAssign", node).value
            return str(ast.literal_eval(value)) if value is not None else ""
    return ""


def _print_verbs() -> None:
    out = Console(highlight=False)
    out.print(USAGE, markup=False)
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name in verb_names():
        table.add_row(f"  {name}", _help_line(name))
    out.print(table)
    out.print("`python -m jobs <verb> --help` explains the keys of one verb.", markup=False)


def _print_help(name: str, verb: Verb) -> None:
    out = Console(highlight=False)
    out.print(f"python -m jobs {name} [PRESET] [dotted.key=value …] [--dry-run]", markup=False)
    out.print(f"{verb.HELP}\n", markup=False)
    if presets := preset_names(name):
        out.print(f"presets: {', '.join(presets)}\n", markup=False)
    table = Table(box=None, header_style="", padding=(0, 2))
    for column in ("key", "default", "meaning"):
        table.add_column(column, overflow="fold")
    for row in describe_keys(verb.Config):
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    out.print(table)
