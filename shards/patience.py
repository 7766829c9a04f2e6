"""Asking a store that may be slow, busy or away for a moment: requests have time limits and are made again, with pauses."""

from __future__ import annotations

import errno
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from shards.errors import OstrakaError, StoreError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# What asking again cannot mend: the store has answered, or the fault is the program's.
_FINAL = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    FileExistsError,
    ImportError,
    IsADirectoryError,
    LookupError,
    MemoryError,
    NameError,
    NotADirectoryError,
    NotImplementedError,
    OstrakaError,
    TypeError,
    ValueError,
)
# Pauses are drawn from the system: they must neither follow nor move the generators that training draws from.
_DICE = random.SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often and how long a store is asked.

    Attributes:
        attempts: requests for the same thing before the run stops.
        timeout_s: of one request; one that takes longer counts as failed, and its answer is thrown away.
        first_pause_s: bound of the pause after the first failure; it doubles with every further one.
        longest_pause_s: bound of every pause.
    """

    attempts: int = 8
    timeout_s: float = 60.0
    first_pause_s: float = 0.2
    longest_pause_s: float = 10.0

    @property
    def limit_s(self) -> float:
        """Longest time that `ask` can take."""
        pauses = sum(self._bound(failures) for failures in range(1, self.attempts))
        return self.attempts * self.timeout_s + pauses

    def ask(self, what: str, request: Callable[[], T], *, on_failure: Callable[[], T | None] | None = None) -> T:
        """Make a request until it is answered.

        Args:
            what: the address, for messages.
            request: runs in a thread of its own, so that it can be left behind when it takes too long.
            on_failure: looks, after each failure, whether the answer can be told otherwise; None is no answer.

        Raises:
            StoreError: the store refuses, or no attempt was answered.
            FileNotFoundError: the store says that there is no such file.
        """
        failure: Exception | None = None
        for attempt in range(1, self.attempts + 1):
            try:
                return within(self.timeout_s, request)
            except FileNotFoundError as problem:  # in the words of the store, which need not name the file
                raise FileNotFoundError(errno.ENOENT, "there is no such file", what) from problem
            except PermissionError as problem:
                raise StoreError(
                    f"{what}: the store refuses ({problem}); check the credentials and rights"
                ) from problem
            except _FINAL:
                raise
            except Exception as problem:  # libraries of stores raise what they like; the last one is raised below
                failure = problem
            answer = on_failure() if on_failure is not None else None
            if answer is not None:
                return answer
            if attempt < self.attempts:
                # "Full jitter": many workers that a store has turned away together must not come back together.
                pause_s = _DICE.uniform(0, self._bound(attempt))
                logger.info("%s: %s; asking again in %.1f s (attempt %d)", what, _named(failure), pause_s, attempt)
                time.sleep(pause_s)
        raise StoreError(
            f"{what}: the store did not answer {self.attempts} requests (the last failure: {_named(failure)}); "
            "see whether it can be reached and run the same command again, or raise cache.attempts or cache.timeout_s"
        ) from failure

    def _bound(self, failures: int) -> float:
        return float(min(self.longest_pause_s, self.first_pause_s * 2.0 ** (failures - 1)))


def within(limit_s: float, request: Callable[[], T]) -> T:
    """Run a request and leave it behind when it takes too long; it ends, or not, in a thread that nobody waits for.

    Raises:
        TimeoutError: it took longer than `limit_s`.
    """
    answers: list[T] = []
    problems: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            answers.append(request())
        except BaseException as problem:
            problems.append(problem)
        finally:
            ended.set()

    threading.Thread(target=run, name="store-request", daemon=True).start()
    if not ended.wait(limit_s):
        raise TimeoutError(f"no answer within {limit_s:g} s")
    if problems:
        raise problems[0]
    return answers[0]


def _named(problem: Any) -> str:
    text = str(problem) or "no reason given"
    return text if isinstance(problem, TimeoutError) else f"{type(problem).__name__}: {text}"
