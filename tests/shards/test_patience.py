from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable

import pytest

from shards.errors import StoreError
from shards.patience import Patience, within

QUICK = Patience(attempts=5, timeout_s=5, first_pause_s=0.001, longest_pause_s=0.004)


def fails(times: int, problem: Exception) -> Callable[[], str]:
    calls = itertools.count()

    def request() -> str:
        if next(calls) < times:
            raise problem
        return "answer"

    return request


class UnheardOfError(Exception):
    """Of a library that knows no better."""


@pytest.mark.parametrize("problem", [ConnectionResetError(104, "lost"), TimeoutError(), UnheardOfError("5xx")])
def test_what_may_pass_is_asked_again_until_it_is_answered(problem: Exception) -> None:
    assert QUICK.ask("s3://b/f", fails(4, problem)) == "answer"
    with pytest.raises(StoreError, match=r"s3://b/f: the store did not answer 5 requests .*cache\.attempts"):
        QUICK.ask("s3://b/f", fails(5, problem))


@pytest.mark.parametrize("problem", [FileNotFoundError("f"), ValueError("a fault of the code")])
def test_an_answer_that_will_not_change_is_not_asked_for_again(problem: Exception) -> None:
    with pytest.raises(type(problem)):
        QUICK.ask("s3://b/f", fails(1, problem))


def test_a_refusal_is_one_sentence() -> None:
    with pytest.raises(StoreError, match=r"refuses .*credentials"):
        QUICK.ask("s3://b/f", fails(1, PermissionError("403")))


def test_a_request_that_hangs_is_left_behind_and_made_again() -> None:
    never, calls = threading.Event(), itertools.count()
    patience = Patience(attempts=3, timeout_s=0.1, first_pause_s=0.001)
    assert patience.ask("f", lambda: "answer" if next(calls) else str(never.wait())) == "answer"
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"no answer within 0\.1 s"):
        patience.ask("f", never.wait)
    assert time.monotonic() - began < patience.limit_s + 1
    never.set()


def test_an_error_of_a_request_arrives_as_it_was_raised() -> None:
    with pytest.raises(KeyError, match="k"):
        within(5, lambda: {"a": 1}["k"])


def test_pauses_grow_to_their_bound_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("shards.patience.time.sleep", pauses.append)
    patience = Patience(attempts=9, first_pause_s=1, longest_pause_s=16)
    for _ in range(60):
        with pytest.raises(StoreError):
            patience.ask("f", fails(9, OSError("busy")))
    by_attempt = [pauses[attempt::8] for attempt in range(8)]
    for attempt, drawn in enumerate(by_attempt):
        bound = min(16, 2**attempt)
        assert max(drawn) <= bound
        assert max(drawn) > 0.8 * bound  # fails once in a million runs
        assert min(drawn) < 0.2 * bound


def test_asking_again_draws_nothing_from_pythons_generator() -> None:
    random.seed(3)
    expected = random.random()
    random.seed(3)
    QUICK.ask("f", fails(3, OSError("busy")))
    assert random.random() == expected
