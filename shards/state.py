"""What resumes a stream: a few numbers, the same on every rank, and the sentence that refuses another order's numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from shards.errors import ConfigError

STATE_SCHEMA = 2
_ADVICE = "restore it, or start a new run from the checkpoint's weights"
_SETTINGS = ("seed", "window", "lanes", "drop_last", "shuffle", "plan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """A stretch of a run at one batch size, and where in the order it begins.

    A lone source counts `position` within its epoch; a mixture counts the samples of the whole run, and its epoch stays 0.
    """

    step: int = 0
    batch_size: int
    epoch: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """Where a run stands in its stream, whatever the world size."""

    schema: int = STATE_SCHEMA
    seed: int
    step: int
    legs: tuple[Leg, ...]  # every batch size that the run has had, the last one in force
    window: int
    lanes: int
    drop_last: bool
    shuffle: bool
    plan: Mapping[str, Any]  # what batches are cut by, where it is a token budget; else empty
    digests: Mapping[str, str]  # source → digest of the manifest, and of the view it is seen through
    items: Mapping[str, int]
    weights: Mapping[str, float]
    changes: tuple[tuple[int, Mapping[str, float]], ...] = ()  # steps at which the weights change

    @property
    def batch_size(self) -> int:
        """Slots of the batch at which the run stands."""
        return self.legs[-1].batch_size

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
        legs = tuple(Leg(**leg) for leg in value["legs"])
        changes = tuple((step, weights) for step, weights in value["changes"])
        return cls(**{**value, "legs": legs, "changes": changes})

    def refuse_another(self, here: StreamState) -> None:
        """Refuse a state of another order than the one at hand; batch sizes may differ.

        Raises:
            ConfigError: names what differs.
        """
        if list(self.digests) != list(here.digests):
            raise ConfigError(
                f"the checkpoint's stream mixes {', '.join(self.digests)} and this run {', '.join(here.digests)}; {_ADVICE}"
            )
        for name in self.digests:
            stored, found = (self.digests[name], self.items[name]), (here.digests[name], here.items[name])
            if stored != found:
                raise ConfigError(
                    f"the checkpoint's streams.{name} is the dataset or view {stored[0]} of {stored[1]:,} items and this run's "
                    f"is {found[0]} of {found[1]:,}; {_ADVICE}"
                )
        for key in _SETTINGS:
            self._agree(key, getattr(self, key), getattr(here, key))
        for name in self.weights:
            self._agree(f"streams.{name}.weight", self.weights[name], here.weights[name])
        self._agree(
            "the changes of weights",
            [[step, dict(weights)] for step, weights in self.changes],
            [[step, dict(weights)] for step, weights in here.changes],
        )

    @staticmethod
    def _agree(what: str, stored: object, here: object) -> None:
        if stored != here:
            raise ConfigError(f"the checkpoint's stream has {what} {stored!r} and this run has {here!r}; {_ADVICE}")
