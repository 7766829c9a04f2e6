"""A cache of shards: bounded, shared by processes, whole or absent, whoever dies."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import random
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import xxhash

from shards.cache import FOLDER, Content, ShardCache
from shards.errors import StoreError
from shards.ranges import Place

SIZE = 1000
FORK = multiprocessing.get_context("fork")
ReadRange = Callable[[int, int], bytes]


def shard(number: int, size: int = SIZE) -> bytes:
    return random.Random(number).randbytes(size)


def content(data: bytes) -> Content:
    return Content(xxhash.xxh3_64_hexdigest(data), len(data))


def store(data: bytes, asked: list[int] | None = None) -> ReadRange:
    def read_range(offset: int, size: int) -> bytes:
        if asked is not None:
            asked.append(offset)
        return data[offset : offset + size]

    return read_range


def nobody(offset: int, size: int) -> bytes:
    raise AssertionError("the store was asked")


def names(folder: Path, suffix: str = ".tar") -> list[str]:
    return sorted(path.name for path in (folder / FOLDER).glob(f"*{suffix}"))


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(str(tmp_path), limit_bytes=3 * SIZE, in_use_s=0, wait_s=20)


def test_a_shard_is_fetched_once_and_then_read_here(cache: ShardCache, tmp_path: Path) -> None:
    data = shard(1)
    assert cache.read(content(data), [Place(0, 10)]) is None
    assert cache.ensure(content(data), store(data))
    assert cache.ensure(content(data), nobody)
    assert cache.read(content(data), [Place(990, 50), Place(5, 7)]) == [data[990:], data[5:12]]
    assert Path(cache.path(content(data))).read_bytes() == data
    assert names(tmp_path, ".part") == []


def test_the_entries_never_exceed_the_bound_and_the_longest_unread_go_first(cache: ShardCache, tmp_path: Path) -> None:
    shards = [shard(number) for number in range(3)]
    for age, data in enumerate(shards):
        assert cache.ensure(content(data), store(data))
        os.utime(cache.path(content(data)), (age, age))
    assert cache.read(content(shards[0]), [Place(0, 1)])  # read again, so now the youngest
    assert cache.ensure(content(shard(9)), store(shard(9)))
    there = [os.path.exists(cache.path(content(data))) for data in (*shards, shard(9))]
    assert there == [True, False, True, True]
    assert sum(path.stat().st_size for path in (tmp_path / FOLDER).glob("*.tar")) <= cache.limit_bytes


def test_what_is_in_use_stays_and_the_newcomer_is_read_from_the_store(tmp_path: Path) -> None:
    cache = ShardCache(str(tmp_path), limit_bytes=2 * SIZE)
    assert all(cache.ensure(content(shard(number)), store(shard(number))) for number in range(2))
    assert not cache.ensure(content(shard(2)), nobody)
    assert all(cache.ensure(content(shard(number)), nobody) for number in range(2))


def test_a_shard_larger_than_the_cache_is_never_fetched(cache: ShardCache, caplog: pytest.LogCaptureFixture) -> None:
    large = shard(1, 4 * SIZE)
    assert not cache.ensure(content(large), nobody)
    assert not cache.ensure(content(large), nobody)
    assert [record.message for record in caplog.records] == [
        "cache.bytes=3,000 holds not even one shard of 4,000; raise it"
    ]


def test_other_bytes_than_the_manifest_names_are_not_kept(cache: ShardCache, tmp_path: Path) -> None:
    asked: list[int] = []
    for wrong in (shard(2), shard(1)[:-1], b""):
        assert not cache.ensure(content(shard(1)), store(wrong, asked))
    assert names(tmp_path) == names(tmp_path, ".part") == []
    assert asked == [0]  # and not asked for by every record of the shard


def test_a_damaged_entry_is_found_and_dropped_and_a_sound_one_stays(cache: ShardCache) -> None:
    data = shard(1)
    assert not cache.recheck(content(data))
    for damage in (lambda old: old[:-1], lambda old: b"\xff" + old[1:], lambda old: b""):
        cache.ensure(content(data), store(data))
        assert cache.recheck(content(data))
        Path(cache.path(content(data))).write_bytes(damage(data))
        assert not cache.recheck(content(data))
        assert cache.read(content(data), [Place(0, 1)]) is None


def test_files_of_others_in_the_folder_are_left_alone(cache: ShardCache, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    for name in ("mine.tar", "0123-12.part", "notes"):
        (tmp_path / FOLDER / name).write_bytes(bytes(5 * SIZE))
    for number in range(5):
        assert cache.ensure(content(shard(number)), store(shard(number)))
    assert {"mine.tar", "0123-12.part", "notes"} <= set(os.listdir(tmp_path / FOLDER))


@pytest.mark.parametrize("call", ["pwrite", "ftruncate", "rename", "open"])
def test_a_disk_that_takes_nothing_costs_the_cache_and_not_the_run(
    cache: ShardCache, tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache.make_folder()

    def full(*arguments: object, **options: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        assert not cache.ensure(content(shard(1)), store(shard(1)))
    assert "No space left on device" in caplog.text
    assert names(tmp_path) == names(tmp_path, ".part") == []
    assert not cache.ensure(content(shard(2)), nobody)  # not tried again for every record


def test_a_store_that_fails_in_the_middle_leaves_nothing_behind(cache: ShardCache, tmp_path: Path) -> None:
    def fails(offset: int, size: int) -> bytes:
        raise StoreError("away")

    with pytest.raises(StoreError, match="away"):
        cache.ensure(content(shard(1)), fails)
    assert names(tmp_path, ".part") == []
    assert cache.ensure(content(shard(1)), store(shard(1)))


def _fetch_slowly(cache: ShardCache, begun: Event, fetches: str) -> None:
    def read_range(offset: int, size: int) -> bytes:
        with open(fetches, "a") as file:
            file.write("x")
        begun.set()
        time.sleep(0.3)
        return shard(1)[offset : offset + size]

    assert cache.ensure(content(shard(1)), read_range)
    assert cache.read(content(shard(1)), [Place(3, 4)]) == [shard(1)[3:7]]


def test_of_a_herd_of_processes_one_fetches_and_the_others_wait_for_it(cache: ShardCache, tmp_path: Path) -> None:
    herd = [FORK.Process(target=_fetch_slowly, args=(cache, FORK.Event(), str(tmp_path / "fetches"))) for _ in range(6)]
    for process in herd:
        process.start()
    for process in herd:
        process.join(30)
    assert [process.exitcode for process in herd] == [0] * 6
    assert (tmp_path / "fetches").read_text() == "x"


def _fetch_and_hang(cache: ShardCache, begun: Event) -> None:
    def read_range(offset: int, size: int) -> bytes:
        if offset:
            begun.set()
            time.sleep(600)
        return shard(1)[offset : offset + size]

    cache.ensure(content(shard(1)), read_range)


@pytest.fixture
def hanging(cache: ShardCache, monkeypatch: pytest.MonkeyPatch) -> multiprocessing.process.BaseProcess:
    """A process that has written half of an entry and does not come to an end with it."""
    monkeypatch.setattr("shards.cache._PIECE_BYTES", SIZE // 2)
    begun = FORK.Event()
    process = FORK.Process(target=_fetch_and_hang, args=(cache, begun), daemon=True)
    process.start()
    assert begun.wait(20)
    return process


def test_half_an_entry_is_never_read_and_a_killed_fetch_is_made_again_at_once(
    cache: ShardCache, tmp_path: Path, hanging: multiprocessing.process.BaseProcess
) -> None:
    assert len(names(tmp_path, ".part")) == 1
    assert cache.read(content(shard(1)), [Place(0, 1)]) is None
    assert hanging.pid is not None
    os.kill(hanging.pid, signal.SIGKILL)
    hanging.join(10)
    began = time.monotonic()
    assert cache.ensure(content(shard(1)), store(shard(1)))
    assert time.monotonic() - began < 5
    assert Path(cache.path(content(shard(1)))).read_bytes() == shard(1)
    assert names(tmp_path, ".part") == []


def test_what_a_killed_fetch_left_is_swept_with_the_next_shard(
    cache: ShardCache, tmp_path: Path, hanging: multiprocessing.process.BaseProcess
) -> None:
    assert cache.ensure(content(shard(2)), store(shard(2)))
    assert len(names(tmp_path, ".part")) == 1  # of a living one
    hanging.kill()
    hanging.join(10)
    assert cache.ensure(content(shard(3)), store(shard(3)))
    assert names(tmp_path, ".part") == []


def test_waiting_for_another_process_ends(
    tmp_path: Path, hanging: multiprocessing.process.BaseProcess, caplog: pytest.LogCaptureFixture
) -> None:
    impatient = ShardCache(str(tmp_path), limit_bytes=3 * SIZE, wait_s=0.3)
    assert not impatient.ensure(content(shard(1)), nobody)
    assert "has not come to an end" in caplog.text
    hanging.kill()
    hanging.join(10)


def test_a_child_does_not_keep_the_claims_of_a_parent_that_was_killed(cache: ShardCache, tmp_path: Path) -> None:
    ready = FORK.Event()

    def parent() -> None:
        inside = threading.Event()

        def read_range(offset: int, size: int) -> bytes:
            inside.set()
            time.sleep(600)
            return b""

        threading.Thread(target=cache.ensure, args=(content(shard(1)), read_range), daemon=True).start()
        assert inside.wait(10)
        if os.fork() == 0:
            signal.alarm(10)  # by then the test is over
            ready.set()
            time.sleep(20)
        time.sleep(600)

    process = FORK.Process(target=parent)
    process.start()
    assert ready.wait(20)
    process.kill()
    while process.exitcode is None:  # `join` would wait for the child, too, which holds a copy of what it waits on
        time.sleep(0.01)
    began = time.monotonic()
    assert cache.ensure(content(shard(1)), store(shard(1)))
    assert time.monotonic() - began < 5


def _read_at_random(cache: ShardCache, seed: int, seconds: float) -> None:
    dice, until = random.Random(seed), time.monotonic() + seconds
    while time.monotonic() < until:
        data = shard(dice.randrange(12))
        cache._not_before_s.clear()
        if cache.ensure(content(data), store(data)):
            found = cache.read(content(data), [Place(100, 50), Place(0, 9)])
            assert found in (None, [data[100:150], data[:9]])  # None: evicted by another in this moment
        if dice.random() < 0.02:
            cache.recheck(content(data))


def test_processes_that_fetch_evict_and_die_leave_only_whole_entries(cache: ShardCache, tmp_path: Path) -> None:
    cache.make_folder()
    crowd = [FORK.Process(target=_read_at_random, args=(cache, seed, 3.0)) for seed in range(4)]
    for process in crowd:
        process.start()
    for seed in range(8):
        victim = FORK.Process(target=_read_at_random, args=(cache, 100 + seed, 60.0))
        victim.start()
        time.sleep(0.2)
        victim.kill()
        victim.join(10)
    for process in crowd:
        process.join(60)
    assert [process.exitcode for process in crowd] == [0] * 4
    assert sum(path.stat().st_size for path in (tmp_path / FOLDER).iterdir()) <= cache.limit_bytes
    for number in range(12):
        path = Path(cache.path(content(shard(number))))
        assert not path.exists() or path.read_bytes() == shard(number)


def test_a_cache_travels_small_and_without_what_it_has_seen(cache: ShardCache) -> None:
    cache.ensure(content(shard(1)), store(shard(1)))
    assert not cache.ensure(content(shard(2)), store(b"other"))
    blob = pickle.dumps(cache)
    assert len(blob) < 400
    assert pickle.loads(blob).ensure(content(shard(2)), store(shard(2)))
