"""The loader's steps on all ranks at once: every rank gets its own, or all stop with one sentence; damage is counted together."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from shards.stream import Damage, check_damage
from trainers.distributed import Group, sentence_of
from trainers.loader import LoadedStep, Loader


@dataclass(frozen=True, slots=True, kw_only=True)
class _News:
    """What the other ranks must hear before anyone trains on a step."""

    damaged: tuple[Damage, ...] = ()
    failure: str | None = None


class SharedSteps:
    """The steps of this rank, each handed out only when every rank has its own.

    A rank that cannot make its step would otherwise leave the others waiting for its gradients, until a time-out that says
    nothing. The price is one number between CPUs per step.
    """

    def __init__(self, loader: Loader, group: Group, *, allowed_damage: int, known: Sequence[Damage] = ()) -> None:
        """Join a loader with its ranks.

        Args:
            loader: of this rank.
            group: all ranks, each with a loader of the same stream.
            allowed_damage: records of the whole run that may be damaged.
            known: what the run had met before it was resumed.
        """
        self._loader, self._group, self._allowed = loader, group, allowed_damage
        self._damages = {(each.source, each.shard, each.key): each for each in known}

    @property
    def damages(self) -> tuple[Damage, ...]:
        """Every damaged record that any rank has met in the steps handed out, each once, the same on every rank."""
        return tuple(self._damages.values())

    def steps(self, start: int, stop: int) -> Generator[LoadedStep]:
        """Hand out the steps from `start` up to, but without, `stop`. Every rank must ask for the same ones.

        Raises:
            BudgetError: too many records of the run are damaged; on every rank at the same step.
            PeerError: another rank could not make its step.
            OstrakaError: this one could not.
        """
        with closing(self._loader.steps(start, stop)) as own:
            for _ in range(start, stop):
                yield self._agreed(own)

    def _agreed(self, own: Iterator[LoadedStep]) -> LoadedStep:
        try:
            step = next(own)
        except Exception as error:
            self._group.tell(_News(failure=sentence_of(error)))
            raise
        new = tuple(each for each in step.damaged if (each.source, each.shard, each.key) not in self._damages)
        told = self._group.tell(_News(damaged=new) if new else None)
        self._group.raise_for({rank: news.failure for rank, news in told.items() if news.failure is not None})
        for rank in sorted(told):
            for each in told[rank].damaged:
                self._damages.setdefault((each.source, each.shard, each.key), each)
        check_damage(self.damages, allowed=self._allowed)
        return step
