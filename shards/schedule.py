"""Mixtures whose weights change: one schedule per stretch of the run, and every source's counter goes on across the borders."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.errors import ConfigError
from shards.mixture import Mixture

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightChange:
    """From this step on the sources are drawn by these weights; one that is left out, or has weight 0, rests."""

    step: int
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Stretch:
    start: int  # number of its first draw in the run
    sources: Integers  # numbers of the sources that are drawn in it
    mixture: Mixture
    before: Integers  # (S,) draws of every source before it


class Schedule:
    """Draw n → (source, how often that source was drawn before) for any n, with weights that may change at given draws.

    Within a stretch of constant weights every window of 1,000 draws holds each source's share within one draw; the schedule
    of a stretch begins anew, so nothing that was drawn before it matters but the counters.
    """

    def __init__(self, names: Sequence[str], stretches: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Lay out the stretches.

        Args:
            names: of all sources; the numbers that are drawn count through them.
            stretches: the first draw of each stretch, increasing from 0, and its weights by source.

        Raises:
            ConfigError: a weight is not a finite number of at least 0, all are 0, or one names no source.
        """
        self.names = tuple(names)
        self._stretches: list[_Stretch] = []
        for start, weights in stretches:
            before = self.counts(start) if self._stretches else np.zeros(len(self.names), dtype=np.int64)
            drawn = {name: weight for name, weight in _checked(weights, self.names).items() if weight > 0}
            sources = np.array([self.names.index(name) for name in drawn], dtype=np.int64)
            self._stretches.append(_Stretch(start, sources, Mixture(drawn), before))
        self._starts = [stretch.start for stretch in self._stretches]

    def run(self, start: int, length: int) -> tuple[Integers, Integers]:
        """Draw `length` in a row: source numbers (length,), and each one's earlier draws in the run (length,)."""
        drawn, before = [], []
        end = start + length
        while start < end:
            number = bisect_right(self._starts, start) - 1
            stretch = self._stretches[number]
            stop = end if number + 1 == len(self._starts) else min(end, self._starts[number + 1])
            sources, earlier = stretch.mixture.run(start - stretch.start, stop - start)
            drawn.append(stretch.sources[sources])
            before.append(stretch.before[drawn[-1]] + earlier)
            start = stop
        return np.concatenate(drawn), np.concatenate(before)

    def counts(self, n: int) -> Integers:
        """Count each source's draws among the first `n`: (S,), in time independent of `n` but for a logarithm."""
        starts = [stretch.start for stretch in self._stretches]
        stretch = self._stretches[bisect_right(starts, n) - 1]
        counts = stretch.before.copy()
        counts[stretch.sources] += np.array(list(stretch.mixture.counts(n - stretch.start).values()), dtype=np.int64)
        return counts


def tempered(weights: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Even out weights: w^(1/T). 1 leaves them, more brings small sources forward, and a large T draws all alike.

    Source: Arivazhagan et al., "Massively Multilingual Neural Machine Translation in the Wild" (2019), section 3.
    """
    if temperature == 1:
        return dict(weights)
    largest = max(weights.values(), default=1.0) or 1.0
    return {name: (weight / largest) ** (1 / temperature) if weight else 0.0 for name, weight in weights.items()}


def _checked(weights: Mapping[str, float], names: Sequence[str]) -> Mapping[str, float]:
    for name, weight in weights.items():
        if name not in names:
            raise ConfigError(f"a change of weights names {name!r}, which is no stream; there are: {', '.join(names)}")
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"streams.{name}.weight is {weight}; give a number of at least 0, where 0 lets it rest")
    if not any(weights.values()):
        raise ConfigError("a mixture in which every weight is 0 draws nothing; give one stream a positive weight")
    return weights
