from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from shards.ahead import Members, ReadAhead


def reading(
    rows: range, size: int = 10, before: Callable[[], object] = lambda: None
) -> Callable[[], dict[int, Members]]:
    def load() -> dict[int, Members]:
        before()
        return {row: {"jpg": bytes([row]) * size, "json": b"{}"} for row in rows}

    return load


def reading_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")}


def test_what_was_announced_is_read_once_and_handed_out_once() -> None:
    ahead, reads = ReadAhead(threads=2, held_bytes=10_000, wait_s=5), []
    ahead.expect(3, reading(range(4), before=lambda: reads.append(1)))
    assert ahead.take(3, 2, ["json", "jpg"]) == {"jpg": b"\x02" * 10, "json": b"{}"}
    assert ahead.take(3, 2, ["json"]) is None
    assert ahead.take(3, 9, ["json"]) is None
    assert ahead.take(4, 0, ["json"]) is None
    assert ahead.take(3, 1, ["txt"]) is None  # announced without this member
    assert reads == [1]


def test_several_groups_are_read_at_the_same_time() -> None:
    together = threading.Barrier(4)
    ahead = ReadAhead(threads=4, held_bytes=10_000, wait_s=5)
    for shard in range(4):
        ahead.expect(shard, reading(range(2), before=lambda: together.wait(5)))
    deadline = time.monotonic() + 5
    while not together.broken and ahead._held < 4 * 2 * 12 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [ahead.take(shard, 1, ["jpg"]) is not None for shard in range(4)] == [True] * 4


def test_a_failure_is_raised_where_the_record_is_asked_for_and_a_missing_file_is_left_to_the_reader() -> None:
    ahead = ReadAhead(threads=1, held_bytes=100, wait_s=5)

    def fail(problem: Exception) -> Callable[[], dict[int, Members]]:
        def load() -> dict[int, Members]:
            raise problem

        return load

    ahead.expect(0, fail(RuntimeError("away")))
    ahead.expect(1, fail(FileNotFoundError("gone")))
    with pytest.raises(RuntimeError, match="away"):
        ahead.take(0, 0, ["json"])
    assert ahead.take(1, 0, ["json"]) is None


def test_what_nobody_takes_is_let_go_oldest_first() -> None:
    ahead = ReadAhead(threads=1, held_bytes=1000, wait_s=5)
    for shard in range(20):
        ahead.expect(shard, reading(range(1), size=200))
    deadline = time.monotonic() + 5
    while not all(group.done.is_set() for group in ahead._order) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ahead._held <= 1000
    assert ahead.take(19, 0, ["jpg"]) is not None
    assert ahead.take(0, 0, ["jpg"]) is None


def test_a_fork_in_the_middle_of_reading_leaves_the_child_free() -> None:
    inside, leave = threading.Event(), threading.Event()
    ahead = ReadAhead(threads=2, held_bytes=1000, wait_s=60)

    def slow() -> None:
        inside.set()
        leave.wait(30)

    ahead.expect(0, reading(range(1), before=slow))
    assert inside.wait(5)
    with ahead._lock:  # as a thread may hold it at any moment
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            taken = ahead.take(0, 0, ["jpg"])  # nobody reads it here
            ahead.expect(0, reading(range(1)))
            os._exit(0 if taken is None and ahead.take(0, 0, ["jpg"]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    leave.set()
    assert ahead.take(0, 0, ["jpg"]) is not None


def test_threads_end_with_their_owner() -> None:
    before = reading_threads()
    ahead = ReadAhead(threads=3, held_bytes=1000, wait_s=5)
    ahead.expect(0, reading(range(1)))
    assert ahead.take(0, 0, ["jpg"])
    own = reading_threads() - before
    assert len(own) == 3
    del ahead
    gc.collect()
    for thread in own:
        thread.join(5)
    assert not any(thread.is_alive() for thread in own)
