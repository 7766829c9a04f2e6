"""Mixing sources: a deterministic schedule in which every window of 1,000 draws holds each source's share, within one draw.

A source of share w is due 1000·w draws in each thousand. The whole part is laid out once, evenly spread, and repeated in
every thousand. The fractional parts add up to a whole number of *spare* draws per thousand, always at the same places, which
are dealt in turn: spare draw t goes to the source whose arc holds the point t·s on a circle cut into arcs as long as the
fractions. The step s is a little shorter than one, and no arc is as long as s, so the R spare draws of a thousand (and of any
window of 1,000) fall to R different sources, while in the long run each arc is met exactly in proportion to its length. How
often an arc was met before draw t is a sum of floors, which Euclid's algorithm adds up in logarithmic time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from shards.errors import ConfigError

Integers = NDArray[np.int64]

CYCLE = 1_000  # draws between two repetitions of the layout
_GRAIN = 1 << 40  # parts of one draw per thousand in which shares are kept: they are exact to 1e-15
_GOLDEN = (math.sqrt(5) - 1) / 2  # [0; 1, 1, 1, …]: the number worst approximated by fractions


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One draw of the schedule: the source, and how many draws that source has had before."""

    source: str
    before: int


class Mixture:
    """Draw n → (source, how often that source was drawn before), for any n, without walking there."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Lay out the thousand draws that repeat, and the circle that deals the spare ones.

        Args:
            weights: a positive number per source; only their ratios count.

        Raises:
            ConfigError: a weight is not a positive finite number, or there is no source.
        """
        self.names = tuple(weights)
        whole, self._arcs = _shares(weights)
        self._spare = CYCLE - int(whole.sum())
        # The layout: source numbers, and len(names) where a spare draw stands.
        self._layout = _spread([*whole.tolist(), self._spare])
        drawn = self._layout[:, None] == np.arange(len(whole) + 1)
        self._drawn = np.concatenate(
            [np.zeros((1, drawn.shape[1]), dtype=np.int64), np.cumsum(drawn, axis=0)]
        )  # (1001, S+1)
        self._ends = np.cumsum(self._arcs)
        self._circle = max(1, self._spare) * _GRAIN
        self._step = _step(self._spare, longest=int(self._arcs.max()))

    def source_at(self, n: int) -> Draw:
        """Say whose draw number `n` is, and how many that source had before."""
        sources, before = self.run(n, 1)
        return Draw(source=self.names[sources[0]], before=int(before[0]))

    def counts(self, n: int) -> dict[str, int]:
        """Count each source's draws among the first `n`, in time independent of `n` but for a logarithm."""
        return dict(zip(self.names, self._counts(n).tolist(), strict=True))

    def run(self, start: int, length: int) -> tuple[Integers, Integers]:
        """Draw `length` in a row: source numbers (length,) in the order of `names`, and each one's earlier draws (length,)."""
        numbers = np.arange(start, start + length, dtype=np.int64)
        cycles, places = np.divmod(numbers, CYCLE)
        sources = self._layout[places].copy()
        spare = np.flatnonzero(sources == len(self.names))
        turns = cycles[spare] * self._spare + self._drawn[places[spare], -1]
        # Python integers: a turn times the step outgrows 64 bits within a billion draws.
        points = np.array([int(turn) * self._step % self._circle for turn in turns], dtype=np.int64)
        sources[spare] = np.searchsorted(self._ends, points, side="right")
        before = np.empty(length, dtype=np.int64)
        for source, count in enumerate(self._counts(start).tolist()):
            mine = np.flatnonzero(sources == source)
            before[mine] = count + np.arange(len(mine))
        return sources, before

    def _counts(self, n: int) -> Integers:
        cycle, place = divmod(n, CYCLE)
        counts: Integers = cycle * self._drawn[-1, :-1] + self._drawn[place, :-1]
        turns = cycle * self._spare + int(self._drawn[place, -1])
        for source in range(len(self.names)):
            counts[source] += self._spare_before(source, turns)
        return counts

    def _spare_before(self, source: int, turns: int) -> int:
        """Count t < turns with (t·step mod circle) inside the arc of a source."""
        if self._spare == 0 or self._arcs[source] == 0:
            return 0
        end = int(self._ends[source])
        begin = end - int(self._arcs[source])
        # A point is at or past x exactly where floor((t·step + circle − x) / circle) exceeds floor(t·step / circle).
        past_begin = _sum_of_floors(turns, self._step, self._circle - begin, self._circle)
        past_end = _sum_of_floors(turns, self._step, self._circle - end, self._circle)
        return past_begin - past_end


def _shares(weights: Mapping[str, float]) -> tuple[Integers, Integers]:
    """Split 1,000 draws by weight: whole draws (S,), and fractions in grains (S,) that add up to whole draws exactly."""
    if not weights:
        raise ConfigError("a mixture needs at least one source; name one under streams")
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise ConfigError(f"streams.{name}.weight is {weight}; give a positive number, or leave the stream out")
    exact = [Fraction(weight) for weight in weights.values()]
    due = [weight * CYCLE * _GRAIN / sum(exact) for weight in exact]
    # Largest remainders make the grains add up; nobody is left without any.
    grains = [max(1, math.floor(share)) for share in due]
    order = sorted(range(len(due)), key=lambda source: math.floor(due[source]) - due[source])
    for source in order[: max(0, CYCLE * _GRAIN - sum(grains))]:
        grains[source] += 1
    grains[max(range(len(due)), key=due.__getitem__)] += CYCLE * _GRAIN - sum(grains)
    split = [divmod(share, _GRAIN) for share in grains]
    return np.array([whole for whole, _ in split], dtype=np.int64), np.array(
        [part for _, part in split], dtype=np.int64
    )


def _spread(counts: list[int]) -> Integers:
    """Lay out `counts[i]` draws of each i over the cycle, each as evenly as the others allow: draw j is due at (j + ½)/count."""
    owner = np.repeat(np.arange(len(counts)), counts)
    due = np.concatenate([(np.arange(count) + 0.5) / count for count in counts if count] or [np.zeros(0)])
    return owner[np.argsort(due, kind="stable")].astype(np.int64)


def _step(spare: int, *, longest: int) -> int:
    """Choose the rotation per spare draw, in grains: at least the longest arc, below one draw, and prime to the circle.

    Among such steps, step/circle should be hard to approximate by fractions, so that no arc is favoured for long: it is taken
    as the continued fraction [0; spare, quotient, 1, 1, 1, …] with the least quotient that leaves the longest arc room.
    """
    if spare == 0:
        return 1
    room = _GRAIN - longest if spare > 1 else _GRAIN
    quotient = max(1, math.ceil((_GRAIN / max(room, 1) - 1) / spare - _GOLDEN))
    tail = 1 / (quotient + _GOLDEN)
    shortening = max(1, math.floor(_GRAIN * tail / (spare + tail)))
    while math.gcd(_GRAIN - shortening, spare * _GRAIN) > 1 and shortening > 1:
        shortening -= 1
    return _GRAIN - shortening


def _sum_of_floors(terms: int, slope: int, offset: int, divisor: int) -> int:
    """Σ over t = 0 … terms−1 of ⌊(slope·t + offset) / divisor⌋, for non-negative arguments, by Euclid's algorithm.

    Source: Graham, Knuth, Patashnik, "Concrete Mathematics", section 3.5 (counting lattice points under a line).
    """
    total = 0
    while terms > 0:
        total += terms * (terms - 1) // 2 * (slope // divisor) + terms * (offset // divisor)
        slope, offset = slope % divisor, offset % divisor
        top = slope * terms + offset  # the line's height at the right end, in units of 1/divisor
        terms, offset = divmod(top, divisor)
        slope, divisor = divisor, slope
        if divisor == 0:
            break
    return total
