"""How fast a run is, from one line of its log to the next."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping

from trainers.loader import LoadedStep
from trainers.observe import Interval
from trainers.run import Run
from trainers.step import StepLosses


class IntervalClock:
    """Speed and waiting since the last interval, and the time left at that speed."""

    def __init__(self) -> None:
        self._spent_s: defaultdict[str, float] = defaultdict(float)
        self._items = 0  # of this rank
        self._since = time.monotonic()
        self._steps_since: int | None = None

    def add(self, loaded: LoadedStep, taken: StepLosses) -> None:
        """Count one step."""
        self._items += len(loaded.names)
        for name, seconds in (("wait", loaded.waited_s), ("copy", taken.copied_s), *loaded.spent_s.items()):
            self._spent_s[name] += seconds

    def interval(
        self, done: int, run: Run, means: Mapping[str, float], losses: Mapping[str, float], *, lr: float
    ) -> Interval:
        """Put the numbers of the steps since the last interval together, and begin the next."""
        now = time.monotonic()
        elapsed = max(now - self._since, 1e-9)
        steps = done - (run.done if self._steps_since is None else self._steps_since)
        interval = Interval(
            step=done,
            steps=run.horizon.steps,
            losses=losses,
            logged={name: value for name, value in means.items() if name not in losses},
            lr=lr,
            images_per_s=self._items * run.group.world / elapsed,
            wait_share=min(1.0, self._spent_s["wait"] / elapsed),
            eta_s=(run.horizon.steps - done) * elapsed / steps,
            seconds={"step": elapsed / steps, **{name: value / steps for name, value in self._spent_s.items()}},
            damaged=len(run.shared_steps.damages),
        )
        self._since, self._spent_s, self._steps_since, self._items = now, defaultdict(float), done, 0
        return interval
