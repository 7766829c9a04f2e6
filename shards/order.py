"""The order of training: global batches as addresses, a pure function of (sources, seed, step), and what resumes it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.address import Address, keyed_bits
from shards.errors import ConfigError
from shards.plan import EpochOrder
from shards.schedule import Schedule, WeightChange, tempered
from shards.state import Leg, StreamState

__all__ = ["Leg", "SourceSpec", "Stream", "StreamState", "WeightChange"]

_RECENT_ORDERS = 4  # epochs kept per source: a batch touches two, and a reader may go back and forth

Integers = NDArray[np.int64]
Draws = tuple[Integers, Integers, Integers]  # per slot: the source's number, its epoch, the position there


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """What the order needs to know of a dataset."""

    dataset_digest: str
    sizes: tuple[int, ...]  # items per shard: records, or annotations; the selected ones, where there is a view
    weight: float | None = None  # share of the mixture; where not given: the items of an epoch times `epochs`
    epochs: int = 1  # of this source in one epoch of the mixture
    group: str = ""  # (task, modality): examples of two groups never share a micro-batch

    @property
    def items(self) -> int:
        return sum(self.sizes)


class Stream:
    """Global batches as addresses: a pure function of (sources, seed, step) that reads nothing.

    A lone source with `drop_last` leaves out, in each epoch, the last items that fill no batch; in a mixture each source runs
    through its own epochs without a gap. Without `drop_last` each epoch visits every item of every source once, in turn, and
    ends with a short batch: the form for evaluation, together with `shuffle=False`.

    Over any 1,000 slots of a mixture in one lane each source has its share within one item, and so it has, in several lanes,
    over any 1,000 slots of each lane. All lanes draw the same sources in a batch: where sources belong to several groups and
    the processes divide the lanes, every process holds equally many examples of each group, so none waits for another.
    """

    def __init__(
        self,
        sources: Mapping[str, SourceSpec],
        *,
        batch_size: int,
        seed: int,
        drop_last: bool = True,
        shuffle: bool = True,
        window: int = 16,
        lanes: int = 1,
        temperature: float = 1.0,
        changes: Sequence[WeightChange] = (),
        until: str | None = None,
        legs: Sequence[Leg] = (),
    ) -> None:
        """Describe an order; nothing is read or listed.

        Args:
            sources: by the name that the run gives them.
            batch_size: slots of a global batch, over all ranks and micro-batches.
            seed: of the run.
            drop_last: whether an epoch leaves out the items that fill no batch.
            shuffle: whether the order is drawn, or the manifests' own.
            window: how many shards are shuffled together.
            lanes: into how many stretches an epoch is dealt, so that a rank can stay on its own shards.
            temperature: evens out the weights of the sources, see `tempered`.
            changes: steps at which the weights change, as they stand in it, untempered.
            until: what ends an epoch of a mixture: the source of this name is through, "first" or "all" (of the sources);
                None: as many draws as the sources' epochs add up to. Sources that go on do so without a gap.
            legs: the batch sizes that the run has had before, see `carry`.

        Raises:
            ConfigError: sizes that do not fit each other.
        """
        self.sources = dict(sources)
        self.batch_size, self.seed, self.drop_last, self.shuffle = batch_size, seed, drop_last, shuffle
        self.window, self.lanes, self.temperature, self.until = window, lanes, temperature, until
        self.changes = tuple(sorted(changes, key=lambda change: change.step))
        self.legs = tuple(legs) or (Leg(batch_size=batch_size),)
        self._names = tuple(self.sources)
        self._sizes = {name: np.array(spec.sizes, dtype=np.int64) for name, spec in self.sources.items()}
        self._items = {name: int(sizes.sum()) for name, sizes in self._sizes.items()}
        self._check()
        self._lengths = np.array([self._epoch_length(name) for name in self._names], dtype=np.int64)
        visits = {name: self._items[name] * spec.epochs for name, spec in self.sources.items()}
        given = {name: spec.weight for name, spec in self.sources.items()}
        self._weights = tempered(
            {name: float(visits[name] if weight is None else weight) for name, weight in given.items()}, temperature
        )
        self._visits = sum(visits.values())
        self._schedule = self._lay_schedule()
        self._orders: dict[tuple[str, int], EpochOrder] = {}

    @property
    def items(self) -> int:
        """Items of all sources together."""
        return sum(self._items.values())

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of the sources, in the order of their micro-batches."""
        return tuple(sorted({spec.group for spec in self.sources.values()}))

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch: the length of the first one, at the present batch size, where `until` makes them differ."""
        if not self.drop_last:
            return -(-self.items // self.batch_size)
        if len(self.sources) == 1:
            return self.items // self.batch_size
        return max(1, self.steps_of(1) if self.until else self._visits // self.batch_size)

    def steps_of(self, epochs: int) -> int:
        """Count the steps of the first `epochs` epochs of the run, exactly, whatever its batch sizes were."""
        if not self.drop_last or (len(self.legs) == 1 and (len(self.sources) == 1 or self.until is None)):
            return epochs * self.steps_per_epoch
        reached = 1
        while not self._is_through(reached, epochs):
            reached *= 2
        return bisect_right(range(reached), False, key=lambda step: self._is_through(step, epochs))

    def batch(self, step: int) -> list[Address]:
        """List the global batch of a step, slot by slot; only an epoch's last batch without `drop_last` is short."""
        return self._addresses(self._draws(step))

    def slots(self, step: int, rank: int, world: int) -> list[Address]:
        """List the contiguous slots of a step's batch that a rank owns; in a short batch the last ranks may own none.

        Raises:
            ConfigError: the world size does not divide the batch size.
        """
        own = self.span(step, rank, world)
        sources, epochs, positions = self._draws(step)
        mine = slice(own.start, own.stop)
        return self._addresses((sources[mine], epochs[mine], positions[mine]))

    def own_slots(self, rank: int, world: int) -> range:
        """Say which slots of every batch a rank owns, at the present batch size; of batches by tokens, which parts.

        Raises:
            ConfigError: the world size does not divide the batch size, or the parts.
        """
        return self._share(self.batch_size, rank, world)

    def span(self, step: int, rank: int, world: int) -> range:
        """Say which slots of one step's batch a rank owns."""
        return self._share(self._leg(step).batch_size, rank, world)

    def parts(self, step: int, rank: int, world: int, micro_batches: int = 1) -> tuple[tuple[int, ...], ...]:
        """Cut a rank's slots into micro-batches that each hold one group only, in an order that is the same on all ranks.

        Returns:
            Numbers within `slots(step, rank, world)`. With one group these are equal cuts in order; with several each group is
            cut into pieces of at most the same size. In the short batch that ends an evaluation, fewer or none.
        """
        own = self.span(step, rank, world)
        size = len(own) // micro_batches
        sources = self._draws(step)[0][own.start : own.stop]
        groups = np.array([self.groups.index(self.sources[name].group) for name in self._names])[sources]
        held = [np.flatnonzero(groups == group).tolist() for group in range(len(self.groups))]
        return tuple(tuple(mine[place : place + size]) for mine in held for place in range(0, len(mine), size))

    def reserve(self, address: Address, attempt: int) -> Address:
        """Name the item that takes a damaged item's slot: from the same epoch, keyed by the slot and the attempt."""
        order = self._order(address.source, address.epoch)
        place = ("reserve", self.seed, address.epoch, address.source, address.position, attempt)
        position = self._stand_in(address, keyed_bits(*place))
        shard, item = order.at(position)
        return Address(source=address.source, shard=shard, item=item, epoch=address.epoch, position=position)

    def state(self, step: int) -> StreamState:
        """Say all that must be stored to go on at a step."""
        return StreamState(
            seed=self.seed,
            step=step,
            legs=self.legs,
            window=self.window,
            lanes=self.lanes,
            drop_last=self.drop_last,
            shuffle=self.shuffle,
            plan=self._plan_settings(),
            digests={name: spec.dataset_digest for name, spec in self.sources.items()},
            items=dict(self._items),
            weights=dict(self._weights),
            changes=tuple((change.step, dict(change.weights)) for change in self.changes),
        )

    def carry(self, state: StreamState) -> Stream:
        """Make the order that goes on at a stored state's step, with nothing replayed and nothing left out.

        Where the batch size differs from the stored one, it goes on at the very sample, and steps before it keep the batches
        that they had. A lone source ends the epoch at hand with its last whole batch of the new size.

        Raises:
            ConfigError: the state belongs to another order, or an evaluation's.
        """
        state.refuse_another(self.state(state.step))
        if state.legs == self.legs:
            return self
        before = self._with(state.batch_size, state.legs)
        if state.batch_size == self.batch_size:
            return before
        if not self.drop_last:
            raise ConfigError(
                f"an evaluation goes on with the batch size that it was begun with; set batch_size={state.batch_size}"
            )
        epoch, position = before.position(state.step)
        leg = Leg(step=state.step, batch_size=self.batch_size, epoch=epoch, position=position)
        return self._with(self.batch_size, (*(leg for leg in state.legs if leg.step < state.step), leg))

    def position(self, step: int) -> tuple[int, int]:
        """Say where a step begins: (epoch, sample within it) for a lone source, (0, sample of the run) for a mixture."""
        leg = self._leg(step)
        batches = step - leg.step
        if len(self.sources) > 1 and self.drop_last:
            return 0, leg.position + batches * leg.batch_size
        left = (self.items - leg.position) // leg.batch_size if self.drop_last else self.steps_per_epoch
        if batches < left:
            return leg.epoch, leg.position + batches * leg.batch_size
        whole = self.items // leg.batch_size if self.drop_last else self.steps_per_epoch
        epochs, batch = divmod(batches - left, whole)
        return leg.epoch + 1 + epochs, batch * leg.batch_size

    def _addresses(self, draws: Draws) -> list[Address]:
        sources, epochs, positions = draws
        addresses: list[Address | None] = [None] * len(sources)
        runs = dict.fromkeys(zip(sources.tolist(), epochs.tolist(), strict=True))
        for source, epoch in runs:
            name = self._names[source]
            slots = np.flatnonzero((sources == source) & (epochs == epoch))
            shards, items = self._order(name, epoch).at_many(positions[slots])
            for slot, shard, item, position in zip(
                slots.tolist(), shards.tolist(), items.tolist(), positions[slots].tolist(), strict=True
            ):
                addresses[slot] = Address(source=name, shard=shard, item=item, epoch=epoch, position=position)
        return [address for address in addresses if address is not None]

    def _draws(self, step: int) -> Draws:
        """Say, per slot: the source's number, its epoch and the position there; (B,) each, or shorter at an epoch's end."""
        if step < 0:
            raise IndexError(f"step {step} is before the first one")
        if not self.drop_last:
            return self._sweep(step)
        epoch, position = self.position(step)
        size = self._leg(step).batch_size
        if len(self.sources) == 1:
            positions = np.arange(position, position + size, dtype=np.int64)
            # A lane's slots are neighbours, and position p belongs to lane p mod lanes.
            positions = positions.reshape(-1, self.lanes).T.reshape(-1)
            return np.zeros(size, dtype=np.int64), np.full(size, epoch, dtype=np.int64), positions
        turns = size // self.lanes
        sources, before = self._schedule.run(position // self.lanes, turns)
        # One turn draws an item for each lane. Slot = lane · turns + turn, so that a lane's slots are neighbours.
        lane = np.repeat(np.arange(self.lanes), turns)
        sources, draws = np.tile(sources, self.lanes), np.tile(before, self.lanes) * self.lanes + lane
        lengths = self._lengths[sources]
        return sources, draws // lengths, draws % lengths

    def _sweep(self, step: int) -> Draws:
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self.batch_size
        places = np.arange(first, min(first + self.batch_size, self.items), dtype=np.int64)
        sizes = np.array(list(self._items.values()), dtype=np.int64)
        ends = np.cumsum(sizes)
        sources = np.searchsorted(ends, places, side="right").astype(np.int64)
        return sources, np.full_like(places, epoch), places - (ends - sizes)[sources]

    def _stand_in(self, address: Address, draw: int) -> int:
        """Turn 64 drawn bits into the position of an item that may take a damaged item's slot."""
        return draw % len(self._order(address.source, address.epoch))

    def _leg(self, step: int) -> Leg:
        return self.legs[bisect_right(self.legs, step, key=lambda leg: leg.step) - 1]

    def _share(self, batch_size: int, rank: int, world: int) -> range:
        if world < 1 or batch_size % world or not 0 <= rank < world:
            raise ConfigError(
                f"batch_size={batch_size} cannot be split over {world} processes (rank {rank}); "
                "choose a batch size that the number of processes divides"
            )
        if len(self.groups) > 1 and self.lanes % world:
            raise ConfigError(
                f"lanes={self.lanes} does not give each of {world} processes equally many examples of {', '.join(self.groups)}; "
                f"set lanes to a multiple of {world}"
            )
        share = batch_size // world
        return range(rank * share, (rank + 1) * share)

    def _is_through(self, step: int, epochs: int) -> bool:
        """Whether the first `epochs` epochs end with or before the batch before `step`."""
        epoch, position = self.position(step)
        if len(self.sources) == 1:
            return epoch >= epochs
        if self.until is None:
            return position + self._leg(step).batch_size > epochs * self._visits
        counts = self._schedule.counts(position // self.lanes) * self.lanes
        due = epochs * self._lengths * np.array([spec.epochs for spec in self.sources.values()])
        if self.until in self.sources:
            number = self._names.index(self.until)
            return bool(counts[number] >= due[number])
        return bool(np.any(counts >= due) if self.until == "first" else np.all(counts >= due))

    def _epoch_length(self, name: str) -> int:
        return self._items[name] - self._items[name] % self.lanes

    def _lay_schedule(self) -> Schedule:
        stretches: list[tuple[int, Mapping[str, float]]] = [(0, self._weights)]
        for change in self.changes if self.drop_last and len(self.sources) > 1 else ():
            stretches.append((self._first_draw(change.step), change.weights))
        return Schedule(self._names, stretches)

    def _first_draw(self, step: int) -> int:
        return self.position(step)[1] // self.lanes

    def _plan_settings(self) -> Mapping[str, object]:
        return {}

    def _with(self, batch_size: int, legs: Sequence[Leg]) -> Stream:
        return Stream(
            self.sources,
            batch_size=batch_size,
            seed=self.seed,
            drop_last=self.drop_last,
            shuffle=self.shuffle,
            window=self.window,
            lanes=self.lanes,
            temperature=self.temperature,
            changes=self.changes,
            until=self.until,
            legs=legs,
        )

    def _order(self, name: str, epoch: int) -> EpochOrder:
        found = self._orders.pop((name, epoch), None)
        if found is None:
            found = EpochOrder(
                self._sizes[name],
                dataset_digest=self.sources[name].dataset_digest,
                seed=self.seed,
                epoch=epoch,
                window=self.window,
                shuffle=self.shuffle,
                lanes=self.lanes,
            )
        self._orders[name, epoch] = found  # last in the dictionary: used most recently
        while len(self._orders) > _RECENT_ORDERS * len(self.sources):
            del self._orders[next(iter(self._orders))]
        return found

    def _check(self) -> None:
        sizes = {self.batch_size, *(leg.batch_size for leg in self.legs)}
        if min(*sizes, self.window, self.lanes) < 1 or any(size % self.lanes for size in sizes):
            raise ConfigError(
                f"batch_size={self.batch_size}, window={self.window} and lanes={self.lanes} must be positive, "
                "and lanes must divide the batch size"
            )
        if not self.drop_last and self.lanes > 1:
            raise ConfigError(f"lanes={self.lanes} needs drop_last; evaluation visits every item in one lane")
        self._check_until()
        for name in self.sources:
            is_lone = len(self.sources) == 1 and self.drop_last
            setting, least = ("batch_size", self.batch_size) if is_lone else ("lanes", self.lanes)
            if self._items[name] < least:
                raise ConfigError(
                    f"streams.{name} holds {self._items[name]} items, fewer than one batch needs ({least}); lower {setting}"
                )

    def _check_until(self) -> None:
        if self.until not in (None, "first", "all", *self.sources):
            raise ConfigError(f"until={self.until!r} is neither first, all, nor one of: {', '.join(self.sources)}")
        if self.until is None or self.until == "first":
            return
        given = {name: spec.weight for name, spec in self.sources.items()}
        last = self.changes[-1].weights if self.changes else given
        for name in self.sources if self.until == "all" else (self.until,):
            if last.get(name, 0) == 0:  # None is a weight by size
                raise ConfigError(f"until={self.until!r} would never come: streams.{name} has weight 0 to the end")
