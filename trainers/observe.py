"""What a run says: metrics.jsonl, TensorBoard, and one steady line per interval. Rank 0 only."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from shards.errors import MissingLibraryError

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
ORDER = "order.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The numbers of the steps since the last line."""

    step: int  # optimiser steps done
    steps: int  # of how many
    losses: Mapping[str, float]  # means over the interval: "loss" (the total) and "loss/<term>"
    logged: Mapping[str, float]  # means of what else the family reports
    lr: float
    images_per_s: float
    wait_share: float  # of the wall time, spent waiting for data
    eta_s: float
    seconds: Mapping[
        str, float
    ]  # per step: `step`, of it `wait` and `copy`; and by stage what loader processes spent on it
    damaged: int = 0  # records of the run so far whose slots were taken by reserves

    def values(self) -> dict[str, float]:
        """Name every number as metrics.jsonl does."""
        return {
            **self.losses,
            **self.logged,
            "lr": self.lr,
            "images_per_s": self.images_per_s,
            "wait_share": self.wait_share,
            "damaged": float(self.damaged),
            **{f"seconds/{name}": value for name, value in self.seconds.items()},
        }


class Observer(Protocol):
    """Something that is told the numbers of an interval."""

    def interval(self, interval: Interval) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """A file of one JSON object per line that a resumed run continues exactly where its checkpoint stood.

    Lines are written whole and flushed; what a killed process wrote after its last checkpoint is cut off on resume.
    """

    def __init__(self, path: Path, *, resume_step: int) -> None:
        """Open for appending after dropping every line beyond `resume_step`, and a torn last line.

        Args:
            path: the file; each line has a `step`.
            resume_step: optimiser steps that the checkpoint has done; 0 starts afresh.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            keep = [line for line, step in _lines(path) if step <= resume_step]
            temporary = path.with_name(f".{path.name}-{os.getpid()}")
            temporary.write_text("".join(keep), encoding="utf-8")
            temporary.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._file.write("".join(json.dumps(row) + "\n" for row in rows))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _lines(path: Path) -> Iterable[tuple[str, int]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                step = int(json.loads(line)["step"])
            except (ValueError, KeyError, TypeError):
                logger.warning("%s: dropped a torn line (a process was killed while writing it)", path)
                continue
            yield line, step


class MetricsFile:
    """metrics.jsonl: one object per number, `{"step", "name", "value"}`."""

    def __init__(self, run: Path, *, resume_step: int) -> None:
        self._lines = JsonLines(run / METRICS, resume_step=resume_step)

    def interval(self, interval: Interval) -> None:
        self._lines.write(
            {"step": interval.step, "name": name, "value": value} for name, value in interval.values().items()
        )

    def close(self) -> None:
        self._lines.close()


class TensorBoard:
    """TensorBoard event files; points beyond the resumed step are purged by TensorBoard's own rule."""

    def __init__(self, run: Path, *, resume_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingLibraryError(
                "tensorboard is not installed: `pip install tensorboard`, or train with tensorboard=false"
            ) from error
        self._writer: Any = SummaryWriter(str(run / "tensorboard"), purge_step=resume_step + 1 if resume_step else None)

    def interval(self, interval: Interval) -> None:
        for name, value in interval.values().items():
            self._writer.add_scalar(name, value, interval.step)

    def close(self) -> None:
        self._writer.close()


class SteadyLine:
    """One aligned line per interval, through the log or whatever `emit` is."""

    def __init__(self, emit: Callable[[str], object] = logger.info) -> None:
        self._emit = emit

    def interval(self, interval: Interval) -> None:
        self._emit(line(interval))

    def close(self) -> None:
        pass


def line(interval: Interval) -> str:
    """Write an interval as one aligned line: step, losses, rate, speed, time left, share of the time without data."""
    width = len(str(interval.steps))
    losses = [
        f"{name.removeprefix('loss/').replace('_', ' ')} {value:.4g}" if name != "loss" else f"loss {value:.3f}"
        for name, value in interval.losses.items()
    ]
    parts: Sequence[str] = (
        f"step {interval.step:>{width}}/{interval.steps}",
        *(f"{text:<{len(text.rsplit(' ', 1)[0]) + 7}}" for text in losses),
        f"lr {interval.lr:.1e}",
        f"{interval.images_per_s:>6.0f} img/s",
        f"wait {100 * interval.wait_share:>3.0f} %",
        *((f"damaged {interval.damaged}",) if interval.damaged else ()),
        f"eta {duration(interval.eta_s)}",
    )
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Write a time as a person reads it: 42s, 12m05s, 6h12m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m"
