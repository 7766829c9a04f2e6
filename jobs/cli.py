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

from jobs.config import dump_config, load_config, split_words
from jobs.explain import print_help
from jobs.progress import set_up_logging
from shards.config import nearest
from shards.errors import ConfigError, InputError, OstrakaError

logger = logging.getLogger(__name__)

VERBS = Path(__file__).parent / "verbs"
USAGE = "usage: python -m jobs <verb> [PRESET] [dotted.key=value …] [--dry-run] [--verbose] [--help]"
FLAGS = {"--dry-run", "--help", "-h", "--verbose"}
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
        if unknown := flags - FLAGS:
            raise ConfigError(_unknown_flag(min(unknown)))
        wants_help = bool(flags & {"--help", "-h"})
        if not words:
            _print_verbs()
            return DONE if wants_help else WRONG_USAGE
        name, *rest = words
        verb = load_verb(name)
        if wants_help:
            print_help(name, verb.HELP, verb.Config, rest)
            return DONE
        preset, overrides = split_words(rest)
        if preset in verb.Config.model_fields:
            raise ConfigError(f"{preset!r} is a key of {name!r}: write {preset}=…")
        config = load_config(verb.Config, preset, overrides, verb=name)
        if "--dry-run" in flags:
            print(dump_config(config), end="", flush=True)
        return verb.run(config, dry_run="--dry-run" in flags)
    except (ConfigError, InputError) as error:
        logger.error("error: %s", error)
        return WRONG_USAGE
    except KeyboardInterrupt:
        logger.error(
            "interrupted: the same command goes on from what was committed last, in a training from its newest checkpoint"
        )
        return INTERRUPTED
    except Exception as error:
        if not _is_for_people(error):
            raise
        logger.error("error: %s", error)
        return FAILED


def _is_for_people(error: Exception) -> bool:
    """Whether an error carries a sentence for the person at the terminal: ours, or one that the model room defines."""
    return isinstance(error, OstrakaError) or type(error).__module__.partition(".")[0] == "model"


def _unknown_flag(flag: str) -> str:
    """Say what a word with dashes should have been; a key is the likeliest where there is a `=`."""
    bare = flag.lstrip("-")
    if "=" in flag:
        return f"unknown flag {flag!r}: keys are written without dashes, {bare}"
    return f"unknown flag {flag!r}: {nearest(flag, FLAGS)} (keys are written without dashes, dotted.key=value)"


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
    out.print(USAGE, markup=False, soft_wrap=True)
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name in verb_names():
        table.add_row(f"  {name}", _help_line(name))
    out.print(table)
    out.print("`python -m jobs <verb> --help` explains the keys of one verb.", markup=False, soft_wrap=True)
