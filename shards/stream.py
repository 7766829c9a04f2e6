"""The stream: addresses of the order turned into records with their sidecars; what is damaged is counted, named and replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field

from shards.address import Address
from shards.config import Config, digest
from shards.errors import BudgetError, ConfigError, DamagedRecordError
from shards.order import SourceSpec, Stream, StreamState
from shards.records import Record

if TYPE_CHECKING:
    from shards.reader import Dataset
    from shards.sidecar import Sidecar
    from shards.view import View

__all__ = [  # the order is part of what a user of streams needs
    "Count",
    "Damage",
    "DamageBudget",
    "Item",
    "RecordStream",
    "SourceSpec",
    "Stream",
    "StreamState",
    "allowed_damage",
    "check_damage",
    "source_of",
]

Count = Literal["records", "annotations"]
T = TypeVar("T")

_TOGETHER = 32  # items that one thread reads ahead, one request after the other where they are no neighbours
_RESERVES = 64  # damaged reserves in a row before the slot is given up


class DamageBudget(Config):
    """How many damaged records a run tolerates: `count`, or the share of all records where that is more."""

    share: float = Field(default=0.01, ge=0, le=1)
    """of all records of the streams; it counts where it allows more than `count`"""
    count: int = Field(default=10, ge=0)
    """damaged records that are tolerated however few records there are"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One record that could not be read or decoded."""

    source: str
    shard: str
    key: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What a task turns into an example: a record, the annotation whose turn it is, and the record's sidecar rows."""

    address: Address
    record: Record
    annotation: int | None  # number within `record.annotations`; None where records are counted
    sidecars: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # column → row
    visit: int = 0  # how often the epoch has shown it before; above 0 only in views that repeat items

    @property
    def name(self) -> str:
        """The key of the item's random choices: the record's key, and the annotation's and the visit's number where meant."""
        name = self.record.key if self.annotation is None else f"{self.record.key}#{self.annotation}"
        return f"{name}@{self.visit}" if self.visit else name


class RecordStream:
    """Addresses → records with their sidecars; damaged ones are counted, named, and replaced by their reserves.

    In evaluation streams (no `drop_last`) nothing may be replaced: there a damaged record stops the run.
    """

    def __init__(
        self,
        stream: Stream,
        datasets: Mapping[str, Dataset],
        *,
        count: Count = "annotations",
        sidecars: Mapping[str, Mapping[str, Sidecar]] | None = None,
        views: Mapping[str, View] | None = None,
        budget: DamageBudget | None = None,
        payload: bool = True,
    ) -> None:
        """Join an order with what it orders.

        Args:
            stream: the order.
            datasets: one per source of the stream.
            count: what the stream's sizes count.
            sidecars: source → column → sidecar whose row goes with each record.
            views: by source, what is seen of its dataset; of others all is.
            budget: how much damage this process tolerates.
            payload: whether the media bytes are read, or the records' headers only.

        Raises:
            ConfigError: a dataset is not the one whose order the stream holds.
        """
        self.stream, self.count, self.budget = stream, count, budget or DamageBudget()
        self._datasets, self._sidecars, self._payload = dict(datasets), dict(sidecars or {}), payload
        self._views = dict(views or {})
        for name, spec in stream.sources.items():
            here = (
                source_of(self._datasets[name], count, view=self._views.get(name)) if name in self._datasets else None
            )
            if here is None or (spec.dataset_digest, spec.sizes) != (here.dataset_digest, here.sizes):
                raise ConfigError(
                    f"streams.{name}: the dataset at hand is not the one that the stream's order was made for"
                )
        self.allowed_damage = allowed_damage(self.budget, self._datasets.values())
        self._damages: dict[tuple[str, str, str], Damage] = {}

    @property
    def damages(self) -> tuple[Damage, ...]:
        """Every damaged record met so far by this process, each once."""
        return tuple(self._damages.values())

    def fetch(self, address: Address) -> Item:
        """Read an item, or its reserve where the record is damaged.

        Raises:
            BudgetError: more records are damaged than the budget allows.
            DamagedRecordError: the stream is an evaluation's, where nothing is replaced.
        """
        return self.make(address, lambda item: item)

    def make(self, address: Address, use: Callable[[Item], T]) -> T:
        """Read an item and make something of it; a `DamagedRecordError` from either moves on to the slot's next reserve."""
        candidate = address
        last: DamagedRecordError | None = None
        for attempt in range(_RESERVES):
            try:
                return use(self.read(candidate))
            except DamagedRecordError as problem:
                self._note(candidate, problem)
                last = problem
            candidate = self.stream.reserve(address, attempt)
        raise BudgetError(
            f"{_RESERVES} records in a row cannot be used in {address.source!r}, beginning at shard "
            f"{self._shard_name(address)}, the last of them because: {last}; run `python -m jobs verify dataset=…` on it, or "
            "choose a dataset that holds what the task looks at"
        ) from last

    def read(self, address: Address) -> Item:
        """Read exactly this item.

        Raises:
            DamagedRecordError: the record's bytes are not what was written.
        """
        dataset = self._datasets[address.source]
        row, annotation = self._locate(address)
        record = dataset.record(address.shard, row, payload=self._payload)
        if annotation is not None and annotation >= len(record.annotations):
            raise DamagedRecordError(
                f"record {record.key!r} of shard {self._shard_name(address)} has fewer annotations than its index says"
            )
        columns = self._sidecars.get(address.source, {})
        rows = {column: sidecar.row(address.shard, record.key) for column, sidecar in columns.items()}
        _, visit = self._seen(address)
        return Item(address=address, record=record, annotation=annotation, sidecars=rows, visit=visit)

    @property
    def ahead(self) -> int:
        """How many steps should be announced before they are made: 0 where all datasets lie on this machine."""
        return max((dataset.ahead for dataset in self._datasets.values()), default=0)

    def expect(self, addresses: Iterable[Address]) -> None:
        """Announce items that will be read soon, so that stores are read meanwhile. Changes nothing but the waiting."""
        by_shard: dict[tuple[str, int], list[Address]] = {}
        for address in addresses:
            by_shard.setdefault((address.source, address.shard), []).append(address)
        for (source, shard), wanted in by_shard.items():
            wanted.sort(key=lambda address: address.item)  # so that neighbours are read together
            for start in range(0, len(wanted), _TOGETHER):
                rows = partial(self._rows, wanted[start : start + _TOGETHER])
                self._datasets[source].expect(shard, rows, payload=self._payload)

    def _rows(self, addresses: Sequence[Address]) -> list[int]:
        return [self._locate(address)[0] for address in addresses]

    def _locate(self, address: Address) -> tuple[int, int | None]:
        item, _ = self._seen(address)
        if self.count == "records":
            return item, None
        return self._datasets[address.source].index(address.shard).locate(item)

    def _seen(self, address: Address) -> tuple[int, int]:
        """The item's number in its whole shard, and how often the epoch's view has shown it before."""
        view = self._views.get(address.source)
        return (address.item, 0) if view is None else view.visits.item(address.shard, address.item)

    def _note(self, address: Address, problem: DamagedRecordError) -> None:
        if not self.stream.drop_last:
            raise DamagedRecordError(
                f"{problem} (evaluation leaves nothing out: run `python -m jobs verify` on the dataset)"
            ) from problem
        row, _ = self._locate(address)
        key = self._datasets[address.source].index(address.shard).keys[row]
        shard = self._shard_name(address)
        self._damages.setdefault(
            (address.source, shard, key), Damage(source=address.source, shard=shard, key=key, what=str(problem))
        )
        check_damage(self.damages, allowed=self.allowed_damage)

    def _shard_name(self, address: Address) -> str:
        return self._datasets[address.source].manifest[address.shard].name


def source_of(
    dataset: Dataset,
    count: Count,
    weight: float | None = None,
    *,
    view: View | None = None,
    epochs: int = 1,
    group: str = "",
) -> SourceSpec:
    """Describe a dataset, or what a view shows of it, to the order."""
    return SourceSpec(
        dataset_digest=dataset.digest if view is None else digest([dataset.digest, view.digest]),
        sizes=tuple(dataset.shard_sizes(count)) if view is None else view.sizes,
        weight=weight,
        epochs=epochs,
        group=group,
    )


def allowed_damage(budget: DamageBudget, datasets: Iterable[Dataset]) -> int:
    """How many records of some datasets may be damaged."""
    return max(budget.count, int(budget.share * sum(map(len, datasets))))


def check_damage(damages: Sequence[Damage], *, allowed: int) -> None:
    """Stop a run in which too many records are damaged.

    Raises:
        BudgetError: there are more damages than allowed; the last ones are named.
    """
    if len(damages) > allowed:
        named = "; ".join(f"{each.key} in {each.shard}: {each.what}" for each in damages[-3:])
        raise BudgetError(
            f"{len(damages)} records are damaged and the budget allows {allowed} ({named}); "
            "run `python -m jobs verify` on the dataset and mend it"
        )
