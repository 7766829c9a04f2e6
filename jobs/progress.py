"""Progress of a long step: a live bar on a terminal, one steady line per interval otherwise; always on standard error."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.table import Column

logger = logging.getLogger(__name__)
console = Console(stderr=True)

LINE_INTERVAL_S = 10.0
ROOMY = 76  # columns of a terminal; a narrower one shows the numbers in place of the bar and of the time that went by


def set_up_logging(*, verbose: bool = False) -> None:
    """Send the log to standard error once, at the entry point, so that it does not tear a live bar."""
    level = logging.DEBUG if verbose else logging.INFO
    handler = _AboveTheBar() if console.is_terminal else logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for room in ("shards", "pipelines", "concepts", "model", "trainers", "jobs"):
        logging.getLogger(room).setLevel(level)


class _AboveTheBar(logging.Handler):
    """Prints above a live bar. Lines are wrapped by the terminal, not by us, so that a path in them can be copied whole."""

    def emit(self, record: logging.LogRecord) -> None:
        colour = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else None
        console.print(self.format(record), style=colour, markup=False, highlight=False, soft_wrap=True)


class Bar:
    """One step's progress. `advance` may carry counts (added up) and a note (replaced)."""

    def __init__(self, label: str, *, total: int, unit: str, done: int = 0, live: Progress | None = None) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.done = done
        self._resumed = done
        self._counts: dict[str, int] = {}
        self._note = ""
        self._live = live
        self._task = live.add_task(label, total=total, completed=done, numbers="") if live else None
        self._started = self._spoke = time.monotonic()

    def advance(self, amount: int = 1, *, note: str | None = None, **counts: int) -> None:
        """Say that `amount` more units are done; `counts` such as `records=…` are added up and shown."""
        self.done += amount
        self.total = max(self.total, self.done)  # more than expected, as where files of a damaged dataset are missing
        for name, count in counts.items():
            self._counts[name] = self._counts.get(name, 0) + count
        if note is not None:
            self._note = note
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=self.done, total=self.total, numbers=self._numbers())
        elif time.monotonic() - self._spoke >= LINE_INTERVAL_S:
            self._speak()

    def finish(self) -> None:
        """Say the last line of a step that has no live bar."""
        if self._live is None:
            self._speak()

    def _numbers(self) -> str:
        counts = "  ".join(f"{name} {count:,}" for name, count in self._counts.items())
        return "  ".join(part for part in (counts, self._note) if part)

    def _speak(self) -> None:
        now = self._spoke = time.monotonic()
        elapsed = max(now - self._started, 1e-9)
        rate = (self.done - self._resumed) / elapsed
        width = len(f"{self.total:,}")
        parts = [f"{self.label:<12} {self.done:>{width},}/{self.total:,} {self.unit}", self._numbers()]
        if rate > 0:
            left = f"eta {clock((self.total - self.done) / rate)}" if self.done < self.total else f"in {clock(elapsed)}"
            parts += [f"{rate:,.1f} {self.unit}/s", left]
        else:
            parts.append("done before" if self.done == self.total else f"in {clock(elapsed)}")
        logger.info("   ".join(part for part in parts if part))


@contextmanager
def progress(label: str, *, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
    """Show the progress of one step.

    Args:
        label: what runs, in one or two words.
        total: number of units in all.
        unit: what is counted, in the plural ("shards", "images", "steps").
        done: units that an earlier run has finished already.
    """
    if not console.is_terminal:
        bar = Bar(label, total=total, unit=unit, done=done)
        yield bar
        bar.finish()
        return
    with Progress(*_columns(unit), console=console) as live:
        yield Bar(label, total=total, unit=unit, done=done, live=live)


def _columns(unit: str) -> Iterator[ProgressColumn]:
    """What a live bar shows on this terminal, from left to right; only the counts give way where even that is too much."""
    roomy = console.width >= ROOMY
    yield SpinnerColumn()
    yield TextColumn("{task.description:<12}" if roomy else "{task.description}")
    if roomy:
        yield BarColumn()
    yield MofNCompleteColumn(table_column=Column(no_wrap=True))
    yield TextColumn(unit)
    yield TextColumn("{task.fields[numbers]}")
    if roomy:
        yield TimeElapsedColumn()
    yield TimeLeftColumn(compact=True, table_column=Column(no_wrap=True, min_width=5))


class Stages:
    """The progress of work that tells `(stage, done, total)`: a bar for each stage, one after the other."""

    def __init__(self, units: Mapping[str, str], *, unit: str) -> None:
        """Args:
        units: what a stage counts, in the plural.
        unit: what the stages that are not named count.
        """
        self._units = units
        self._unit = unit
        self._stack = ExitStack()
        self._stage: str | None = None
        self._bar: Bar | None = None

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Say how far a stage is; what is done when it is first told of is not counted into its rate."""
        if stage != self._stage or self._bar is None:
            self._stack.close()
            unit = self._units.get(stage, self._unit)
            self._bar = self._stack.enter_context(progress(stage, total=total, unit=unit, done=done))
            self._stage = stage
        else:
            self._bar.advance(done - self._bar.done)


def clock(seconds: float) -> str:
    """Write a duration as a person reads it: `42s`, `6m12s`, `3h05m`."""
    if not seconds < 1e8:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
