"""Stages of a flow: commands that a person could type, run in this process, timed, and skipped when they are done.

The record of a finished stage in `timings.json` carries a digest of everything that its result depends on: its resolved
configs and the stages that it builds on. A stage runs again when that digest changed, its output is gone, or one that it builds
on has run again; stages that do not build on one another leave each other alone.
"""

from __future__ import annotations

import json
import logging
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jobs.cli import Verb, load_verb
from jobs.config import load_config
from jobs.demo.memory import PeakMemory
from shards.config import digest
from shards.errors import OstrakaError
from shards.stores import open_storage

logger = logging.getLogger(__name__)

TIMINGS = "timings.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command line: a verb, perhaps a preset, and overrides."""

    verb: str
    preset: str | None = None
    overrides: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """As a person would type it."""
        words = [*([self.preset] if self.preset else []), *self.overrides]
        return shlex.join(["python", "-m", "jobs", self.verb, *words])

    def load(self) -> tuple[Verb, BaseModel]:
        """The verb's module and its config, exactly as the command line would build them."""
        verb = load_verb(self.verb)
        return verb, load_config(verb.Config, self.preset, self.overrides, verb=self.verb)

    def run(self) -> None:
        verb, config = self.load()
        if verb.run(config, dry_run=False) != 0:
            raise OstrakaError(f"`{self.line}` stopped early; run it, or the whole flow, again to go on from there")

    def describe(self) -> Any:
        """What the result depends on."""
        return self.load()[1].model_dump(mode="json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    """A piece of the demo that is no verb of its own; `line` is the command that runs the flow up to and with it."""

    line: str
    config: BaseModel
    work: Callable[[], object]

    def run(self) -> None:
        self.work()

    def describe(self) -> Any:
        return self.config.model_dump(mode="json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Commands that are timed together, and the files that are there when they are done."""

    name: str
    step: int  # of the flow, as a person counts them
    title: str
    commands: tuple[Command | Inner, ...]
    evidence: tuple[Path, ...]  # a name may hold a `*` in the place of a digest
    after: tuple[str, ...] | None = None  # the names of the stages it builds on; None: the one before
    always: bool = False  # runs even when it is done: its input includes how long the others took
    around: Callable[[], AbstractContextManager[object]] = nullcontext  # what the commands share, such as one Ray


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What a finished stage took, and what its result depends on."""

    name: str
    title: str
    command: str
    seconds: float
    peak_mib: float
    digest: str
    after: tuple[str, ...]  # the stages that it was built on


def run_stages(stages: Sequence[Stage], folder: Path, *, until: str | None = None) -> tuple[Timing, ...]:
    """Run what is not done yet, in order.

    Args:
        stages: in order; each builds on some of those before it.
        folder: where `timings.json` lies.
        until: name of the last stage to run; None: all.

    Returns:
        The timings of the stages that are done now; a stage that was skipped keeps those of the run that did it.
    """
    known = {timing.name: timing for timing in read_timings(folder)}
    storage = open_storage(folder)
    done: dict[str, Timing] = {}
    steps = max(stage.step for stage in stages)
    for place, stage in enumerate(stages):
        after = stage.after if stage.after is not None else tuple(before.name for before in stages[:place][-1:])
        made = _digest(stage, [done[name].digest for name in after])
        heading = f"[{stage.step}/{steps}] {stage.title}"
        before = known.get(stage.name)
        if before and before.digest == made and not stage.always and all(map(_is_there, stage.evidence)):
            logger.info("%s: done before, in %.1f s", heading, before.seconds)
            done[stage.name] = before
        else:
            logger.info("%s", heading)
            # What was built on an earlier run of it is worth nothing any more, and so is half of a run.
            known = _without_what_builds_on(stage.name, known)
            storage.replace(TIMINGS, _encode(done, known))
            done[stage.name] = _run(stage, made, after)
            storage.replace(TIMINGS, _encode(done, known))
        if stage.name == until:
            break
    return tuple(done.values())


def read_timings(folder: Path) -> tuple[Timing, ...]:
    """Read what earlier runs of a flow recorded; nothing where there is no such file or it is of another make."""
    try:
        steps = json.loads((folder / TIMINGS).read_text(encoding="utf-8"))["steps"]
        return tuple(Timing(**{**step, "after": tuple(step["after"])}) for step in steps)
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError):
        logger.warning("%s: not readable, so every stage is looked at again", folder / TIMINGS)
        return ()


def _digest(stage: Stage, before: Sequence[str]) -> str:
    return digest({"before": " ".join(before), "configs": [command.describe() for command in stage.commands]})


def _without_what_builds_on(name: str, known: Mapping[str, Timing]) -> dict[str, Timing]:
    """The records without those of a stage that has run again, and of all that was built on what it made before."""
    gone = {name}
    while more := {timing.name for timing in known.values() if gone & {*timing.after}} - gone:
        gone |= more
    return {key: timing for key, timing in known.items() if key not in gone}


def _is_there(path: Path) -> bool:
    return any(path.parent.glob(path.name))


def _run(stage: Stage, made: str, after: tuple[str, ...]) -> Timing:
    started = time.monotonic()
    with PeakMemory() as memory, stage.around():
        for command in stage.commands:
            logger.info("$ %s", command.line)
            command.run()
    missing = [path for path in stage.evidence if not _is_there(path)]
    if missing:
        raise OstrakaError(
            f"{stage.title}: finished, but {missing[0]} is not there; this is a defect, please report it"
        )
    return Timing(
        name=stage.name,
        title=stage.title,
        command="\n".join(command.line for command in stage.commands),
        seconds=round(time.monotonic() - started, 2),
        peak_mib=round(memory.peak_bytes / 2**20, 1),
        digest=made,
        after=after,
    )


def _encode(done: Mapping[str, Timing], known: Mapping[str, Timing]) -> bytes:
    """The records of this run so far, then those of earlier runs that still hold."""
    others = [timing for name, timing in known.items() if name not in done]
    timings = [asdict(timing) for timing in (*done.values(), *others)]
    return json.dumps({"schema": 1, "steps": timings}, indent=2).encode() + b"\n"
