"""The order of training: global batches as addresses, a pure function of (sources, seed, step), and what resumes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shards.address import Address, keyed_bits
from shards.errors import ConfigError
from shards.mixture import Mixture
from shards.plan import EpochOrder

STATE_SCHEMA = 1
_RECENT_ORDERS = 4  # epochs kept per source: a batch touches two, and a reader may go back and forth
_MUST_AGREE = {
    "schema": "the schema",
    "digests": "the dataset digests",
    "items": "the item counts",
    "weights": "the weights",
    "seed": "the seed",
    "window": "window",
    "lanes": "lanes",
    "drop_last": "drop_last",
    "shuffle": "shuffle",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """What the order needs to know of a dataset."""

    dataset_digest: str
    sizes: tuple[int, ...]  # items per shard: records, or annotations
    weight: float | None = None  # share of the mixture; the number of items where not given

    @property
    def items(self) -> int:
        return sum(self.sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """Where a run stands in its stream: a few numbers, the same on every rank, at any world size."""

    schema: int = STATE_SCHEMA
    seed: int
    step: int
    batch_size: int
    window: int
    lanes: int
    drop_last: bool
    shuffle: bool
    digests: Mapping[str, str]  # source → manifest digest
    items: Mapping[str, int]
    weights: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read a stored state.

        Raises:
            ConfigError: the state was stored by another version, or is not one.
        """
        if value.get("schema") != STATE_SCHEMA:
            raise ConfigError(
                f"the checkpoint's stream state has schema {value.get('schema')!r} and this version reads {STATE_SCHEMA}; "
                "resume with the version that wrote it, or start a new run from its weights"
            )
        names = {each.name for each in dataclasses.fields(cls)}
        if set(value) != names:
            raise ConfigError(
                f"the checkpoint's stream state has the fields {sorted(value)} instead of {sorted(names)}"
            )
        return cls(**value)


class Stream:
    """Global batches as addresses: a pure function of (sources, seed, step) that reads nothing.

    A lone source with `drop_last` leaves out, in each epoch, the last items that fill no batch; in a mixture each source runs
    through its own epochs without a gap. Without `drop_last` each epoch visits every item of every source once, in turn, and
    ends with a short batch: the form for evaluation, together with `shuffle=False`.
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

        Raises:
            ConfigError: sizes that do not fit each other.
        """
        self.sources = dict(sources)
        self.batch_size, self.seed, self.drop_last, self.shuffle = batch_size, seed, drop_last, shuffle
        self.window, self.lanes = window, lanes
        self._check()
        self._names = tuple(self.sources)
        self._weights = {
            name: float(spec.items if spec.weight is None else spec.weight) for name, spec in sources.items()
        }
        self._mixture = Mixture(self._weights)
        self._orders: dict[tuple[str, int], EpochOrder] = {}

    @property
    def items(self) -> int:
        """Items of all sources together."""
        return sum(spec.items for spec in self.sources.values())

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which as many items are drawn as the sources hold."""
        return self.items // self.batch_size if self.drop_last else -(-self.items // self.batch_size)

    def batch(self, step: int) -> list[Address]:
        """List the global batch of a step, slot by slot; only an epoch's last batch without `drop_last` is short."""
        sources, epochs, positions = self._draws(step)
        addresses: list[Address | None] = [None] * len(sources)
        for source, epoch in np.unique(np.stack([sources, epochs]), axis=1).T.tolist():
            name = self._names[source]
            slots = np.flatnonzero((sources == source) & (epochs == epoch))
            shards, items = self._order(name, epoch).at_many(positions[slots])
            for slot, shard, item, position in zip(
                slots.tolist(), shards.tolist(), items.tolist(), positions[slots].tolist(), strict=True
            ):
                addresses[slot] = Address(source=name, shard=shard, item=item, epoch=epoch, position=position)
        return [address for address in addresses if address is not None]

    def slots(self, step: int, rank: int, world: int) -> list[Address]:
        """List the contiguous slots of a step's batch that a rank owns; in a short batch the last ranks may own none.

        Raises:
            ConfigError: the world size does not divide the batch size.
        """
        own = self.own_slots(rank, world)
        return self.batch(step)[own.start : own.stop]

    def own_slots(self, rank: int, world: int) -> range:
        """Say which slots of every batch a rank owns."""
        if world < 1 or self.batch_size % world or not 0 <= rank < world:
            raise ConfigError(
                f"batch_size={self.batch_size} cannot be split over {world} processes (rank {rank}); "
                "choose a batch size that the number of processes divides"
            )
        share = self.batch_size // world
        return range(rank * share, (rank + 1) * share)

    def reserve(self, address: Address, attempt: int) -> Address:
        """Name the item that takes a damaged item's slot: from the same epoch, keyed by the slot and the attempt."""
        order = self._order(address.source, address.epoch)
        place = ("reserve", self.seed, address.epoch, address.source, address.position, attempt)
        position = keyed_bits(*place) % len(order)
        shard, item = order.at(position)
        return Address(source=address.source, shard=shard, item=item, epoch=address.epoch, position=position)

    def state(self, step: int) -> StreamState:
        """Say all that must be stored to go on at a step."""
        return StreamState(
            seed=self.seed,
            step=step,
            batch_size=self.batch_size,
            window=self.window,
            lanes=self.lanes,
            drop_last=self.drop_last,
            shuffle=self.shuffle,
            digests={name: spec.dataset_digest for name, spec in self.sources.items()},
            items={name: spec.items for name, spec in self.sources.items()},
            weights=dict(self._weights),
        )

    def resume(self, state: StreamState) -> int:
        """Find the step of this stream at which a stored state goes on, with nothing replayed and nothing left out.

        The batch size may differ from the stored one where the stored sample position begins a batch of the new size.

        Raises:
            ConfigError: the state belongs to another order; the message names what differs.
        """
        mine = self.state(state.step)
        for name, what in _MUST_AGREE.items():
            stored, here = getattr(state, name), getattr(mine, name)
            if stored != here:
                raise ConfigError(
                    f"the checkpoint's stream has {what} {stored!r} and this run has {here!r}; "
                    "restore it, or start a new run from the checkpoint's weights"
                )
        if state.batch_size == self.batch_size:
            return state.step
        epoch, position = self._position(state)
        step, rest = divmod(position, self.batch_size)
        if rest or not self.drop_last:
            raise ConfigError(
                f"the checkpoint stands at sample {position:,} of epoch {epoch}, where no batch of batch_size={self.batch_size} "
                f"begins; resume with batch_size={state.batch_size}"
            )
        return epoch * self.steps_per_epoch + step if len(self.sources) == 1 else step

    def _position(self, state: StreamState) -> tuple[int, int]:
        """Count the samples drawn before a state's step: within its epoch for a lone source, over the run in a mixture."""
        if len(self.sources) > 1:
            return 0, state.step * state.batch_size
        steps = self.items // state.batch_size
        epoch, step = divmod(state.step, steps)
        return epoch, step * state.batch_size

    def _draws(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Say, per slot: the source's number, its epoch and the position there; (B,) each, or shorter at an epoch's end."""
        if step < 0:
            raise IndexError(f"step {step} is before the first one")
        if not self.drop_last:
            return self._sweep(step)
        turns_per_batch = self.batch_size // self.lanes
        sources, before = self._mixture.run(step * turns_per_batch, turns_per_batch)
        # One turn draws an item for each lane. Slot = lane · turns + turn, so that a lane's slots are neighbours.
        lane = np.repeat(np.arange(self.lanes), turns_per_batch)
        sources, draws = np.tile(sources, self.lanes), np.tile(before, self.lanes) * self.lanes + lane
        lengths = np.array([self._epoch_length(name) for name in self._names], dtype=np.int64)[sources]
        return sources, draws // lengths, draws % lengths

    def _sweep(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self.batch_size
        places = np.arange(first, min(first + self.batch_size, self.items), dtype=np.int64)
        ends = np.cumsum([spec.items for spec in self.sources.values()])
        sources = np.searchsorted(ends, places, side="right").astype(np.int64)
        starts = ends - np.array([spec.items for spec in self.sources.values()], dtype=np.int64)
        return sources, np.full_like(places, epoch), places - starts[sources]

    def _epoch_length(self, name: str) -> int:
        items = self.sources[name].items
        if len(self.sources) == 1:
            return items - items % self.batch_size
        return items - items % self.lanes

    def _order(self, name: str, epoch: int) -> EpochOrder:
        found = self._orders.pop((name, epoch), None)
        if found is None:
            spec = self.sources[name]
            found = EpochOrder(
                spec.sizes,
                dataset_digest=spec.dataset_digest,
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
        if self.batch_size < 1 or self.window < 1 or self.lanes < 1 or self.batch_size % self.lanes:
            raise ConfigError(
                f"batch_size={self.batch_size}, window={self.window} and lanes={self.lanes} must be positive, "
                "and lanes must divide the batch size"
            )
        if not self.drop_last and self.lanes > 1:
            raise ConfigError(f"lanes={self.lanes} needs drop_last; evaluation visits every item in one lane")
        for name, spec in self.sources.items():
            least = self.batch_size if len(self.sources) == 1 and self.drop_last else self.lanes
            if spec.items < least:
                raise ConfigError(
                    f"streams.{name} holds {spec.items} items, fewer than one batch needs ({least}); lower batch_size"
                )
