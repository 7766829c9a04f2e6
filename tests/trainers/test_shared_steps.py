"""Steps handed out on all ranks or on none, with damage counted over all of them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import pytest

from shards.errors import BudgetError, DatasetError
from shards.stream import Damage
from trainers.distributed import Group, PeerError
from trainers.loader import LoadedStep, Loader
from trainers.shared_steps import SharedSteps


def damage(key: str) -> Damage:
    return Damage(source="s", shard="s-00000", key=key, what=f"record {key!r} is torn")


class Scripted:
    """A loader whose every step meets the damages that it is told, or fails."""

    def __init__(self, script: Sequence[Sequence[str] | Exception]) -> None:
        self.script = script
        self.closed = False

    def steps(self, start: int, stop: int) -> Generator[LoadedStep]:
        try:
            for step in range(start, stop):
                told = self.script[step]
                if isinstance(told, Exception):
                    raise told
                damaged = tuple(damage(key) for key in told)
                yield LoadedStep(step=step, micro_batches=(), names=(), first_slot=0, damaged=damaged)
        finally:
            self.closed = True


@dataclass(frozen=True, kw_only=True)
class Threaded(Group):
    """Ranks that are threads: what they tell one another goes through a barrier and a list."""

    meeting: threading.Barrier
    words: list[Any]

    def tell(self, news: Any) -> dict[int, Any]:
        self.words[self.rank] = news
        self.meeting.wait(10)
        found = {rank: each for rank, each in enumerate(self.words) if each is not None}
        self.meeting.wait(10)
        return found


def together(
    *scripts: Sequence[Sequence[str] | Exception],
    allowed: int,
    known: Sequence[str] = (),
    asked: Mapping[int, int] = MappingProxyType({}),
    failing: Mapping[int, int] = MappingProxyType({}),
) -> list[tuple[list[int], list[str], BaseException | None]]:
    """Run one rank per script; per rank: the steps it got, the damages it counted, and how it ended.

    Args:
        scripts: what each rank's loader meets.
        allowed: how many damages.
        known: damages of before.
        asked: by rank, after how many steps it is asked to end.
        failing: by rank, after how many steps something in its background has failed.
    """
    meeting, words = threading.Barrier(len(scripts)), [None] * len(scripts)
    results: queue.Queue[Any] = queue.Queue()

    def run(rank: int) -> None:
        group = Threaded(rank=rank, world=len(scripts), meeting=meeting, words=words)
        loader = Scripted(scripts[rank])
        done: list[int] = []
        problem = None

        def check() -> None:
            if len(done) >= failing.get(rank, 99):
                raise DatasetError("the disk is full")

        shared = SharedSteps(
            cast(Loader, loader),
            group,
            allowed_damage=allowed,
            known=[damage(key) for key in known],
            asked_to_end=lambda: len(done) >= asked.get(rank, 99),
            check=check,
        )
        try:
            for step in shared.steps(0, len(scripts[rank])):
                done.append(step.step)
        except Exception as error:
            problem = error
        assert loader.closed
        results.put((rank, done, [each.key for each in shared.damages], problem))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(scripts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    found = sorted((results.get(timeout=1) for _ in scripts), key=lambda each: each[0])
    return [(done, keys, problem) for _, done, keys, problem in found]


def test_damage_is_united_over_ranks_each_record_once_and_a_resumed_run_goes_on_counting() -> None:
    ended = together([["a"], [], ["c"]], [["a"], ["b"], ["a", "z"]], allowed=4, known=["z"])
    assert ended == [([0, 1, 2], ["z", "a", "b", "c"], None)] * 2


def test_the_budget_is_that_of_all_ranks_and_ends_them_at_the_same_step() -> None:
    ended = together([["a"], ["b"], []], [["c"], [], []], allowed=2)
    assert [keys for _, keys, _ in ended] == [["a", "c", "b"]] * 2
    for _, _, problem in ended:
        assert isinstance(problem, BudgetError)
        assert "3 records are damaged and the budget allows 2" in str(problem)


@pytest.mark.parametrize(
    "failure", [DatasetError("the index of s-00000 is missing"), ValueError("a fault of the code")]
)
def test_where_one_rank_cannot_make_its_step_the_others_stop_with_its_sentence(failure: Exception) -> None:
    ended = together([[], [], []], [[], failure, []], [[], [], []], allowed=0)
    assert ended[1][2] is failure
    for _, _, problem in (ended[0], ended[2]):
        assert isinstance(problem, PeerError)
        assert "rank 1 stopped the run" in str(problem)
        assert str(failure) in str(problem)


def test_where_one_rank_is_asked_to_end_none_begins_another_step() -> None:
    ended = together([[]] * 5, [[], [], ["later"], [], []], [[]] * 5, allowed=0, asked={2: 2})
    assert ended == [([0, 1], [], None)] * 3


def test_what_fails_in_the_background_of_one_rank_stops_all_before_the_next_step() -> None:
    ended = together([[]] * 4, [[]] * 4, allowed=0, failing={1: 3})
    assert [done for done, _, _ in ended] == [[0, 1, 2]] * 2
    assert isinstance(ended[1][2], DatasetError)
    assert isinstance(ended[0][2], PeerError)
    assert "rank 1 stopped the run: the disk is full" in str(ended[0][2])
