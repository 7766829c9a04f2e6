"""Reading ahead: a few threads fetch what will be asked for soon, records of a shard together, and keep it until it is."""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from shards.forks import begin_in_every_child

Members = dict[str, bytes]  # of one record: extension → bytes
Load = Callable[[], Mapping[int, Members]]  # row → members

_GROUPS = 4096  # announced and not yet taken; more are left to be read when they are asked for
_STOP = None


class ReadAhead:
    """What will be read soon, by shard and row. Nothing of it needs to happen: what is not there is read as if never announced."""

    def __init__(self, *, threads: int, held_bytes: int, wait_s: float) -> None:
        """Describe it; threads start with the first announcement.

        Args:
            threads: that fetch at the same time.
            held_bytes: of members that are fetched and not yet taken; above it, the oldest are let go.
            wait_s: longest wait for a group that a thread is fetching.
        """
        self._threads, self._held_bytes, self._wait_s = threads, held_bytes, wait_s
        self.begin_process()
        begin_in_every_child(self)

    def begin_process(self) -> None:
        """Start with nothing announced and no thread."""
        self._lock = threading.Lock()
        self._groups: dict[int, deque[_Group]] = {}  # shard → its groups, in the order of their announcement
        self._order: deque[_Group] = deque()
        self._held = 0
        self._queue: queue.SimpleQueue[_Group | None] | None = None

    def expect(self, shard: int, load: Load) -> None:
        """Announce some records of a shard; `load` reads them, and is called at most once."""
        group = _Group(shard, load)
        with self._lock:
            self._groups.setdefault(shard, deque()).append(group)
            self._order.append(group)
            if len(self._order) > _GROUPS:
                self._drop(self._order[0])
            if self._queue is None:
                self._queue = self._start()
            self._queue.put(group)

    def take(self, shard: int, row: int, extensions: Iterable[str]) -> Members | None:
        """Hand out a record's members once; None where they were not announced, or some of them were not.

        Raises:
            Exception: whatever ended the reading of a group of this shard.
        """
        with self._lock:
            groups = tuple(self._groups.get(shard, ()))
        for group in groups:
            if group.claim():  # nobody has begun with it: sooner done here than waited for
                self._run(group)
            elif not group.done.wait(self._wait_s):
                continue
            with self._lock:
                members = group.found.get(row)
                if members is not None:
                    if not all(extension in members for extension in extensions):
                        return None
                    del group.found[row]
                    self._held -= _size(members)
                if not group.found:
                    self._drop(group)
            if group.problem is not None:
                raise group.problem
            if members is not None:
                return members
        return None

    def _run(self, group: _Group) -> None:
        """Read a claimed group."""
        try:
            found = dict(group.load())
        except FileNotFoundError:
            found = {}  # reading a record of it will say which one has lost its shard
        except Exception as problem:  # raised where a record of the group is asked for
            group.problem, found = problem, {}
        with self._lock:
            group.found = found
            self._held += sum(map(_size, found.values()))
            while self._held > self._held_bytes and (oldest := self._oldest_done(besides=group)) is not None:
                self._drop(oldest)
        group.load = _forgotten  # its closure may hold an index
        group.done.set()

    def _oldest_done(self, *, besides: _Group) -> _Group | None:
        return next((group for group in self._order if group.found and group is not besides), None)

    def _drop(self, group: _Group) -> None:
        """Forget a group; the caller holds the lock."""
        groups = self._groups.get(group.shard)
        if groups is None or group not in groups:
            return
        groups.remove(group)
        self._order.remove(group)
        if not groups:
            del self._groups[group.shard]
        self._held -= sum(map(_size, group.found.values()))
        group.found = {}

    def _start(self) -> queue.SimpleQueue[_Group | None]:
        """Start the threads: they know only the queue, and end when this object does."""
        work: queue.SimpleQueue[_Group | None] = queue.SimpleQueue()
        me = weakref.ref(self)
        for number in range(self._threads):
            threading.Thread(target=_work, args=(work, me), name=f"read-ahead-{number}", daemon=True).start()
        weakref.finalize(self, _stop, work, self._threads)
        return work


class _Group:
    """Records of one shard that are read together. Compared by identity."""

    __slots__ = ("_claims", "done", "found", "load", "problem", "shard")

    def __init__(self, shard: int, load: Load) -> None:
        self.shard, self.load = shard, load
        self.done = threading.Event()
        self.found: dict[int, Members] = {}
        self.problem: Exception | None = None
        self._claims = [None]

    def claim(self) -> bool:
        """Be the one who reads it; true once. `list.pop` is atomic."""
        try:
            self._claims.pop()
        except IndexError:
            return False
        return True


def _work(work: queue.SimpleQueue[_Group | None], owner: weakref.ref[ReadAhead]) -> None:
    while (group := work.get()) is not _STOP:
        ahead = owner()
        if ahead is not None and group.claim():
            ahead._run(group)
        del ahead, group  # else this thread would keep them alive while it waits


def _stop(work: queue.SimpleQueue[_Group | None], threads: int) -> None:
    for _ in range(threads):
        work.put(_STOP)


def _forgotten() -> Mapping[int, Members]:
    return {}


def _size(members: Members) -> int:
    return sum(map(len, members.values()))
