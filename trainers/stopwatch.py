"""Where a loader's time goes: a few additions per example, cheap enough to be always on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal, get_args

Stage = Literal["read", "decode", "augment", "collate"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class Stopwatch:
    """Seconds by stage since the last `take`; belongs to one process.

    began = stopwatch.now()
    ...
    began = stopwatch.add("decode", began)   # what was done until now; and the next stage begins
    """

    def __init__(self) -> None:
        self._spent: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)

    @staticmethod
    def now() -> float:
        return time.perf_counter()

    def add(self, stage: Stage, began: float) -> float:
        """Count the time since `began` to a stage, and return the present."""
        now = time.perf_counter()
        self._spent[stage] += now - began
        return now

    def credit(self, stage: Stage, seconds: float) -> None:
        """Count seconds that were measured otherwise."""
        self._spent[stage] += seconds

    def take(self) -> Mapping[Stage, float]:
        """Give what was counted, and start afresh."""
        spent, self._spent = self._spent, dict.fromkeys(STAGES, 0.0)
        return spent
