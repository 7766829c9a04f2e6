"""Batches by cost: every step spends the same number of tokens, and every process of it the same share, planned ahead.

An epoch of a source is planned in stretches of its shuffled order, each long enough for some hundred batches. The items of a
stretch are sorted by cost and cut into batches of neighbours, so that padding costs next to nothing; the batches then come in
a drawn order. How many batches a stretch holds follows from how many items of each cost its shards hold, so any step is found
without planning those before it, and only the indices of the stretch at hand are read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shards.address import Address, keyed_bits
from shards.errors import ConfigError
from shards.order import Draws, SourceSpec, Stream, WeightChange
from shards.plan import EpochOrder, Permutation

Integers = NDArray[np.int64]

_BATCHES = 96  # that a stretch should hold: the last one may be half empty and lack a few items, so this bounds both
_RECENT_STRETCHES = 4  # planned ones held in memory


class ItemCosts(Protocol):
    """What the plan must know of a source; `shards.costs.Costs` reads it from a dataset."""

    levels: Integers  # (L,) the costs that occur, increasing
    counts: NDArray[np.int32]  # (shards, L) items by cost

    @property
    def digest(self) -> str: ...

    def of_shard(self, shard: int) -> Integers: ...


@dataclass(frozen=True, slots=True)
class _Cut:
    """The batches of stretches, from the costliest items to the cheapest.

    Attributes:
        started: (stretches, L) full-sized batches whose costliest item has a level; the levels decrease.
        sizes: (L,) items of a full-sized batch by the level of its costliest item.
        batches: (stretches,) number of batches.
        last: (stretches, 2) items of the last two batches, where they are not full-sized; else 0. A lone batch has the second.
    """

    started: Integers
    sizes: Integers
    batches: Integers
    last: Integers

    def ends(self, stretch: int) -> Integers:
        """The borders of a stretch's batches among its sorted items: (batches + 1,)."""
        sizes = np.repeat(self.sizes, self.started[stretch])[: self.batches[stretch]]
        for place in (-1, -2):
            if self.last[stretch, place]:
                sizes[place] = self.last[stretch, place]
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def cut(levels: Integers, counts: Integers, *, tokens: int, parts: int) -> _Cut:
    """Cut sorted items into batches of `parts` equal parts, so that in no part items times the greatest cost exceeds its share.

    All parts of a batch hold equally many items: processes compare theirs with one another, and none may have more. What is
    left for the last batch is evened out with the batch before it; fewer than `parts` items of a stretch are left out.

    Args:
        levels: (L,) costs, increasing, none above `tokens / parts`.
        counts: (stretches, L) items by cost.
        tokens: of a batch.
        parts: of a batch.
    """
    sizes = parts * (tokens // parts // levels[::-1])
    counts = counts[:, ::-1].astype(np.int64)
    started = np.zeros_like(counts)
    spill = np.zeros(len(counts), dtype=np.int64)  # places of the last batch begun that cheaper items must fill
    last, before = spill.copy(), spill.copy()  # sizes of the last batch begun and of the one before it
    for level, size in enumerate(sizes.tolist()):
        left = counts[:, level] - np.minimum(spill, counts[:, level])
        spill = spill - np.minimum(spill, counts[:, level])
        begun = -(-left // size)
        started[:, level] = begun
        spill = np.where(begun > 0, begun * size - left, spill)
        before = np.where(begun > 1, size, np.where(begun == 1, last, before))
        last = np.where(begun > 0, size, last)
    batches = started.sum(axis=1)
    rest = np.where(spill > 0, last - spill, 0)
    whole = (before + rest) // parts * parts  # of the last two; of a lone batch `before` is 0
    # The second is no larger than the first, since its items are as costly now; the first may not outgrow what it was.
    first = np.minimum(-(-whole // (2 * parts)) * parts, before)
    second = whole - first
    kept = (rest > 0) & (second > 0)
    ends = np.stack([np.where(kept, first, 0), np.where(kept, second, 0)], axis=1)
    return _Cut(started=started, sizes=sizes, batches=batches - ((rest > 0) & (second == 0)), last=ends)


class EpochPlan:
    """The batches of one epoch of one source."""

    def __init__(
        self, order: EpochOrder, costs: ItemCosts, *, tokens: int, parts: int, key: tuple[str | int, ...]
    ) -> None:
        """Count the batches of every stretch; nothing is read.

        Args:
            order: of the epoch, in one lane.
            costs: of the source's items.
            tokens: of a batch.
            parts: of a batch.
            key: of the order in which a stretch's batches come.
        """
        self._order, self._costs, self._parts, self._key = order, costs, parts, key
        windows = len(order.window_rows) - 1
        spent = int(costs.counts.sum(axis=0) @ costs.levels)
        stretches = min(windows, max(1, spent // (_BATCHES * tokens)))
        borders = np.arange(stretches + 1) * windows // stretches
        rows = order.window_rows[borders]
        self._starts = order.window_starts[borders]
        held = np.add.reduceat(costs.counts[order.shards], rows[:-1], axis=0, dtype=np.int64)
        self._cut = cut(costs.levels, held, tokens=tokens, parts=parts)
        self._ends = np.cumsum(self._cut.batches)
        self._recent: dict[int, tuple[Integers, Integers]] = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, number: int) -> tuple[Integers, Integers]:
        """List a batch: positions in the epoch's order, part by part, (items,); and the borders of the parts, (parts + 1,)."""
        stretch = int(np.searchsorted(self._ends, number, side="right"))
        first = int(self._ends[stretch] - self._cut.batches[stretch])
        count = int(self._cut.batches[stretch])
        drawn = Permutation(count, keyed_bits("batches", *self._key, stretch)).at(number - first)
        positions, ends = self._planned(stretch)
        return dealt(positions[ends[drawn] : ends[drawn + 1]], self._parts)

    def stand_in(self, position: int, draw: int) -> int:
        """Choose a position whose item can take another's place in its batch: one that costs no more than the batch's costliest.

        Args:
            position: of the item to be replaced.
            draw: any number; another one chooses another item.
        """
        stretch = int(np.searchsorted(self._starts, position, side="right")) - 1
        positions, ends = self._planned(stretch)
        place = int(np.flatnonzero(positions == position)[0])
        first = int(ends[np.searchsorted(ends, place, side="right") - 1])
        return int(positions[first + draw % (len(positions) - first)])

    def _planned(self, stretch: int) -> tuple[Integers, Integers]:
        found = self._recent.get(stretch)
        if found is None:
            positions = np.arange(self._starts[stretch], self._starts[stretch + 1], dtype=np.int64)
            shards, items = self._order.at_many(positions)
            tokens = np.empty(len(positions), dtype=np.int64)
            for shard in sorted(set(shards.tolist())):
                mine = shards == shard
                tokens[mine] = self._costs.of_shard(shard)[items[mine]]
            # Stable: among items of equal cost the order stays the drawn one.
            found = self._without_surplus(positions[np.argsort(-tokens, kind="stable")], stretch)
            while len(self._recent) >= _RECENT_STRETCHES:
                del self._recent[next(iter(self._recent))]
            self._recent[stretch] = found
        return found

    def _without_surplus(self, positions: Integers, stretch: int) -> tuple[Integers, Integers]:
        """Leave out what fills no batch: drawn from the last two, so that the cheapest items are not left out every time."""
        ends = self._cut.ends(stretch)
        start, surplus = int(ends[max(0, len(ends) - 3)]), len(positions) - int(ends[-1])
        drawn = Permutation(len(positions) - start, keyed_bits("surplus", *self._key, stretch))
        return np.delete(positions, start + drawn.at_many(np.arange(surplus))), ends


def dealt(sorted_items: Integers, parts: int) -> tuple[Integers, Integers]:
    """Deal sorted items out to and fro, so that the parts come out alike: items part by part, and the parts' borders."""
    rows = sorted_items.reshape(-1, parts).copy()
    rows[1::2] = rows[1::2, ::-1]
    return rows.T.reshape(-1), np.arange(parts + 1) * len(rows)


class TokenStream(Stream):
    """A stream whose steps spend a number of tokens instead of holding a number of items.

    Each step is one source's: weights are shares of steps, and so of tokens, and no batch mixes tasks or modalities. A batch
    is cut into a fixed number of parts, all with equally many items; any number of processes that divides it sees the same
    batches. An epoch leaves out the few items that fill no batch, each time others. Its number of steps may differ by a few
    from that of another epoch. A step is found in the time of a look at each of its source's shards per epoch before it.
    """

    def __init__(
        self,
        sources: Mapping[str, SourceSpec],
        costs: Mapping[str, ItemCosts],
        *,
        batch_tokens: int,
        parts: int,
        seed: int,
        window: int = 16,
        temperature: float = 1.0,
        changes: Sequence[WeightChange] = (),
        until: str | None = None,
    ) -> None:
        """Describe an order; nothing is read.

        Args:
            sources: by the name that the run gives them; a weight that is not given is the tokens of its epochs.
            costs: of each source's items.
            batch_tokens: of a global batch: items times the greatest cost among them, summed over its parts.
            parts: equal parts of a batch, for processes and micro-batches.
            seed: of the run.
            window: how many shards are shuffled together, at least.
            temperature: evens out the weights.
            changes: steps at which the weights change.
            until: what ends an epoch of a mixture.

        Raises:
            ConfigError: an item is larger than a part, or a source has fewer items than a batch has parts.
        """
        self.batch_tokens, self.batch_parts, self._costs = batch_tokens, parts, dict(costs)
        self._plans: dict[tuple[str, int], EpochPlan] = {}
        self._epoch_ends: dict[str, list[int]] = {name: [] for name in sources}
        share = batch_tokens // max(1, parts)
        for name, each in costs.items():
            if each.levels[-1] > share:
                raise ConfigError(
                    f"streams.{name} has an item of {each.levels[-1]:,} tokens, and batch_tokens={batch_tokens:,} in "
                    f"batch_parts={parts} leaves {share:,}; raise batch_tokens, lower batch_parts or leave it out by `where`"
                )
            if sum(sources[name].sizes) < parts:
                raise ConfigError(
                    f"streams.{name} holds {sum(sources[name].sizes)} items, fewer than batch_parts={parts}; lower batch_parts"
                )
        spent = {name: float(each.counts.sum(axis=0) @ each.levels) for name, each in costs.items()}
        weighted = {
            name: SourceSpec(
                dataset_digest=spec.dataset_digest,
                sizes=spec.sizes,
                weight=spent[name] * spec.epochs if spec.weight is None else spec.weight,
                epochs=spec.epochs,
                group=spec.group,
            )
            for name, spec in sources.items()
        }
        super().__init__(
            weighted,
            batch_size=parts,
            seed=seed,
            window=window,
            temperature=temperature,
            changes=changes,
            until=until,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the first epoch."""
        return self.steps_of(1)

    def steps_of(self, epochs: int) -> int:
        """Count the steps of the first `epochs` epochs of the run, exactly."""
        due = [self._steps_until(name, epochs * spec.epochs) for name, spec in self.sources.items()]
        if len(due) == 1 or self.until is None:
            return sum(due)
        reached = 1
        while not self._has_drawn(reached, due):
            reached *= 2
        return bisect_right(range(reached + 1), False, key=lambda step: self._has_drawn(step, due))

    def span(self, step: int, rank: int, world: int) -> range:
        """Say which slots of one step's batch a rank owns."""
        own = self._share(self.batch_parts, rank, world)
        borders = self._planned(step)[1]
        return range(int(borders[own.start]), int(borders[own.stop]))

    def parts(self, step: int, rank: int, world: int, micro_batches: int = 1) -> tuple[tuple[int, ...], ...]:
        """Cut a rank's slots into micro-batches of equally many parts, one source each."""
        own = self._share(self.batch_parts, rank, world)
        borders = self._planned(step)[1][own.start : own.stop + 1 : len(own) // micro_batches]
        return tuple(tuple(range(start - borders[0], stop - borders[0])) for start, stop in pairwise(borders.tolist()))

    def _stand_in(self, address: Address, draw: int) -> int:
        return self._plan(address.source, address.epoch).stand_in(address.position, draw)

    def _share(self, batch_size: int, rank: int, world: int) -> range:
        if world < 1 or batch_size % world or not 0 <= rank < world:
            raise ConfigError(
                f"batch_parts={batch_size} cannot be split over {world} processes (rank {rank}); "
                "choose a number of parts that the number of processes divides"
            )
        share = batch_size // world
        return range(rank * share, (rank + 1) * share)

    def _draws(self, step: int) -> Draws:
        if step < 0:
            raise IndexError(f"step {step} is before the first one")
        source, epoch, number = self._drawn(step)
        positions, _ = self._plan(self._names[source], epoch).batch(number)
        return np.full(len(positions), source), np.full(len(positions), epoch), positions

    def _planned(self, step: int) -> tuple[Integers, Integers]:
        source, epoch, number = self._drawn(step)
        return self._plan(self._names[source], epoch).batch(number)

    def _drawn(self, step: int) -> tuple[int, int, int]:
        """Say whose step it is: the source's number, its epoch and the number of the batch there."""
        sources, before = self._schedule.run(step, 1)
        name, number = self._names[sources[0]], int(before[0])
        ends = self._epoch_ends[name]
        while not ends or ends[-1] <= number:
            self._steps_until(name, len(ends) + 1)
        epoch = bisect_right(ends, number)
        return int(sources[0]), epoch, number - (ends[epoch - 1] if epoch else 0)

    def _steps_until(self, name: str, epochs: int) -> int:
        """Count the batches of a source's first epochs."""
        ends = self._epoch_ends[name]
        while len(ends) < epochs:
            ends.append((ends[-1] if ends else 0) + len(self._plan(name, len(ends))))
        return ends[epochs - 1] if epochs else 0

    def _plan(self, name: str, epoch: int) -> EpochPlan:
        found = self._plans.pop((name, epoch), None)
        if found is None:
            found = EpochPlan(
                self._order(name, epoch),
                self._costs[name],
                tokens=self.batch_tokens,
                parts=self.batch_parts,
                key=(self.sources[name].dataset_digest, self.seed, epoch),
            )
        self._plans[name, epoch] = found  # last in the dictionary: used most recently
        while len(self._plans) > 2 * len(self.sources):
            del self._plans[next(iter(self._plans))]
        return found

    def _has_drawn(self, step: int, due: Sequence[int]) -> bool:
        counts = self._schedule.counts(step)
        if self.until in self.sources:
            number = self._names.index(self.until)
            return bool(counts[number] >= due[number])
        return bool(np.any(counts >= due) if self.until == "first" else np.all(counts >= due))

    def _first_draw(self, step: int) -> int:
        return step

    def _plan_settings(self) -> Mapping[str, object]:
        costs = {name: each.digest for name, each in self._costs.items()}
        return {"batch_tokens": self.batch_tokens, "batch_parts": self.batch_parts, "costs": costs}
