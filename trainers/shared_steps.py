"""The loader's steps on all ranks at once: every rank gets its own, or all stop with one sentence; damage is counted together."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
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
    asked_to_end: bool = False


def _never() -> bool:
    return False


def _nothing() -> None:
    pass


class SharedSteps:
    """The steps of this rank, each handed out only when every rank has its own.

    A rank that cannot make its step would otherwise leave the others waiting for its gradients, until a time-out that says
    nothing. The price is one number between CPUs per step, and it also carries the request to end: whichever rank is asked,
    no rank begins another step.
    """

    def __init__(
        self,
        loader: Loader,
        group: Group,
        *,
        allowed_damage: int,
        known: Sequence[Damage] = (),
        asked_to_end: Callable[[], bool] = _never,
        check: Callable[[], object] = _nothing,
    ) -> None:
        """Join a loader with its ranks.

        Args:
            loader: of this rank.
            group: all ranks, each with a loader of the same stream.
            allowed_damage: records of the whole run that may be damaged.
            known: what the run had met before it was resumed.
            asked_to_end: whether this process has been asked to end.
            check: called before each step; what it raises on one rank stops all, such as a write in the background that failed.
        """
        self._loader, self._group, self._allowed = loader, group, allowed_damage
        self._asked_to_end, self._check = asked_to_end, check
        self._damages = {(each.source, each.shard, each.key): each for each in known}

    @property
    def damages(self) -> tuple[Damage, ...]:
        """Every damaged record that any rank has met in the steps handed out, each once, the same on every rank."""
        return tuple(self._damages.values())

    def steps(self, start: int, stop: int) -> Generator[LoadedStep]:
        """Hand out the steps from `start` up to, but without, `stop`; fewer where a rank is asked to end.

        Every rank must ask for the same ones.

        Raises:
            BudgetError: too many records of the run are damaged; on every rank at the same step.
            PeerError: another rank could not make its step.
            OstrakaError: this one could not.
        """
        with closing(self._loader.steps(start, stop)) as own:
            for _ in range(start, stop):
                step = self._agreed(own)
                if step is None:
                    return
                yield step

    def _agreed(self, own: Iterator[LoadedStep]) -> LoadedStep | None:
        """The next step of this rank, or none on any rank where one is asked to end."""
        step: LoadedStep | None = None
        new: tuple[Damage, ...] = ()
        # Whoever is asked to end does not wait for data first: that can take as long as a step.
        ends = self._asked_to_end()
        try:
            self._check()
            if not ends:
                step = next(own)
                new = tuple(each for each in step.damaged if (each.source, each.shard, each.key) not in self._damages)
        except Exception as error:
            self._group.tell(_News(failure=sentence_of(error)))
            raise
        told = self._group.tell(_News(damaged=new, asked_to_end=ends) if new or ends else None)
        self._group.raise_for({rank: news.failure for rank, news in told.items() if news.failure is not None})
        if any(news.asked_to_end for news in told.values()):
            return None
        for rank in sorted(told):
            for each in told[rank].damaged:
                self._damages.setdefault((each.source, each.shard, each.key), each)
        check_damage(self.damages, allowed=self._allowed)
        return step
