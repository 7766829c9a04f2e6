"""A bounded cache of shards on local disk, shared by all processes of a node.

An entry is named by the checksum and the size of the shard, so another version of a dataset, or the same shard under another
address, needs no thought. It appears by rename once all its bytes have been checked, and whoever reads it opens it anew: an
entry that was evicted is found missing, and frees its bytes at once. While an entry is fetched, its temporary is at the same
time the lock that others wait for (`flock`, which the kernel takes back from the killed) and the claim on its room.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import xxhash

from shards.forks import begin_in_every_child
from shards.ranges import Place

logger = logging.getLogger(__name__)

FOLDER = "shards-1"  # of a cache folder; another layout would be another number
_NAME = re.compile(r"([0-9a-f]{16})-([0-9]+)\.(tar|part)")
_PIECE_BYTES = 8 << 20
_FOLDER_LOCK = ".lock"
_FOLDER_LOCK_S = 30.0  # looking through the entries takes milliseconds
_LONGEST_PAUSE_S = 0.1
_FULL_S = 1.0  # before room is looked for again, and before a disk is tried again that takes nothing
_UNUSABLE_S = 60.0
_TOUCH_S = 5.0  # how exactly it is known when an entry was last read
IN_USE_S = 30.0

ReadRange = Callable[[int, int], bytes]  # offset, size


class Content(NamedTuple):
    """What a file holds, wherever it lies."""

    xxh3: str  # 16 hex digits
    bytes: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of the cache."""

    name: str
    bytes: int
    used_s: float

    @property
    def is_part(self) -> bool:
        return self.name.endswith(".part")


class _UnusableError(Exception):
    """The cache's own folder does not take what is written: no reason to stop, since the store still has the bytes."""


class ShardCache:
    """Shards by content. Pickles to its settings; any number of processes and threads may share a folder."""

    def __init__(self, folder: str, *, limit_bytes: int, wait_s: float = 600.0, in_use_s: float = IN_USE_S) -> None:
        """Describe a cache; nothing is touched yet.

        Args:
            folder: on a disk of this node.
            limit_bytes: of all entries together, those being fetched included.
            wait_s: longest wait for a shard that another process fetches.
            in_use_s: how long an entry is safe from eviction after it was last read. Without this, a cache smaller than the
                window of the order would fetch a whole shard for every record.
        """
        self.folder = os.path.join(os.path.abspath(os.path.expanduser(folder)), FOLDER)
        self.limit_bytes, self.wait_s, self.in_use_s = limit_bytes, wait_s, in_use_s
        self._start()

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("folder", "limit_bytes", "wait_s", "in_use_s")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        self._touched: dict[Content, float] = {}
        self._refused: set[Content] = set()  # what the store holds in their place is something else
        self._not_before_s: dict[Content | None, float] = {}  # when to try again; under None, for all of them
        self._complaints: set[str] = set()
        self._held: set[int] = set()
        begin_in_every_child(self)

    def begin_process(self) -> None:
        """Let go of the locks that the parent held when it forked this process: it would hold them beyond its parent's death."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held = set()

    def make_folder(self) -> None:
        """Make the folder; raises `OSError` where that cannot be done."""
        os.makedirs(self.folder, exist_ok=True)

    def path(self, content: Content) -> str:
        """Where an entry lies while it is there."""
        return os.path.join(self.folder, f"{content.xxh3}-{content.bytes}.tar")

    def read(self, content: Content, places: Sequence[Place]) -> list[bytes] | None:
        """Read places of an entry; None where there is no such entry."""
        try:
            descriptor = os.open(self.path(content), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            self._touch(content, descriptor)
            return [os.pread(descriptor, place.size, place.offset) for place in places]
        except OSError as problem:
            self._complain(f"{self.path(content)} cannot be read ({problem.strerror}); reading from the store")
            return None
        finally:
            os.close(descriptor)

    def ensure(self, content: Content, read_range: ReadRange) -> bool:
        """Have an entry in the cache, fetching it if nobody else does.

        Args:
            content: what the manifest says of the shard.
            read_range: reads the shard from its store.

        Returns:
            Whether it is there now. If not (no room, a disk that takes nothing, other bytes in the store, another process that
            does not come to an end with it), the store is to be read instead.

        Raises:
            FileNotFoundError: the store has no such shard.
            StoreError: the store does not answer.
        """
        if os.path.exists(self.path(content)):
            return True
        if content.bytes > self.limit_bytes:
            self._complain(f"cache.bytes={self.limit_bytes:,} holds not even one shard of {content.bytes:,}; raise it")
            return False
        soonest_s = max(self._not_before_s.get(each, 0.0) for each in (content, None))
        if content in self._refused or time.monotonic() < soonest_s:
            return False
        deadline, pause_s = time.monotonic() + self.wait_s, 0.002
        while True:
            try:
                with self._claim(content) as descriptor:
                    if descriptor is not None:
                        return self._fetch(content, read_range, descriptor)
            except _UnusableError as problem:
                self._complain(f"the cache {self.folder} takes nothing ({problem}); reading from the store")
                self._not_before_s[None] = time.monotonic() + _UNUSABLE_S
                return False
            if os.path.exists(self.path(content)):
                return True
            if time.monotonic() > deadline:
                self._complain(
                    f"another process has not come to an end with {self.path(content)} for {self.wait_s:g} s; reading "
                    "from the store"
                )
                return False
            time.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 1.5)

    def recheck(self, content: Content) -> bool:
        """Read an entry through and drop it if its bytes are not those that were checked when it came.

        Returns:
            Whether it is sound; False where it is gone, too.
        """
        path = self.path(content)
        try:
            with open(path, "rb") as handle:
                state = xxhash.xxh3_64()
                while piece := handle.read(_PIECE_BYTES):
                    state.update(piece)
                seen = os.fstat(handle.fileno())
                if seen.st_size == content.bytes and state.hexdigest() == content.xxh3:
                    return True
                if _is_at(path, handle.fileno()):  # and not another one, which somebody has fetched meanwhile
                    os.unlink(path)
        except FileNotFoundError:
            return False
        except OSError as problem:
            _remove(path)
            logger.warning("%s cannot be read (%s); fetching it again", path, problem.strerror)
            return False
        logger.warning("%s was damaged since it was fetched; fetching it again", path)
        return False

    @contextmanager
    def _claim(self, content: Content) -> Iterator[int | None]:
        """Be the one who fetches an entry, for the length of the block; None where somebody else is."""
        part = os.path.join(self.folder, f"{content.xxh3}-{content.bytes}.part")
        descriptor = _lock(part)
        if descriptor is None:
            yield None
            return
        self._held.add(descriptor)
        try:
            # Between our look at the entry and our lock, another may have published it, and removed its claim.
            yield descriptor if _is_at(part, descriptor) and not os.path.exists(self.path(content)) else None
        finally:
            if _is_at(part, descriptor):
                _remove(part)
            self._held.discard(descriptor)
            _unlock(descriptor)

    def _fetch(self, content: Content, read_range: ReadRange, descriptor: int) -> bool:
        if not self._make_room(content, descriptor):
            self._not_before_s[content] = time.monotonic() + _FULL_S
            return False
        state, offset = xxhash.xxh3_64(), 0
        while offset < content.bytes:
            piece = read_range(offset, min(_PIECE_BYTES, content.bytes - offset))
            if not piece:
                break
            state.update(piece)
            _write(descriptor, piece, offset)
            offset += len(piece)
        if offset != content.bytes or state.hexdigest() != content.xxh3:
            # Its members are still checked one by one, so what is sound in it can be read from the store.
            self._refused.add(content)
            self._complain(
                f"a shard of {content.bytes:,} bytes is not what the manifest says (xxh3 {content.xxh3}); its members are read "
                "and checked one by one; run the `verify` verb on the dataset"
            )
            return False
        try:
            os.rename(os.path.join(self.folder, f"{content.xxh3}-{content.bytes}.part"), self.path(content))
        except OSError as problem:
            raise _UnusableError(problem.strerror) from problem
        return True

    def _make_room(self, content: Content, descriptor: int) -> bool:
        """Evict what was not read for longest, and claim the room; False where what is left is in use."""
        with self._folder_locked():
            entries = list(self._entries(besides=os.fstat(descriptor).st_ino))
            excess = sum(entry.bytes for entry in entries) + content.bytes - self.limit_bytes
            evicted, now_s = [], time.time()
            for entry in sorted(entries, key=lambda entry: entry.used_s):
                if excess <= 0:
                    break
                if not entry.is_part and now_s - entry.used_s >= self.in_use_s:
                    evicted.append(entry)
                    excess -= entry.bytes
            if excess > 0:
                return False
            for entry in evicted:
                _remove(os.path.join(self.folder, entry.name))
            try:
                os.ftruncate(descriptor, 0)
                os.ftruncate(descriptor, content.bytes)  # others count this file as large as it will be
            except OSError as problem:
                raise _UnusableError(problem.strerror) from problem
            return True

    def _entries(self, *, besides: int) -> Iterator[_Entry]:
        """Every file of the cache but the inode `besides`; temporaries of the killed are removed on the way."""
        with os.scandir(self.folder) as found:
            for each in found:
                match = _NAME.fullmatch(each.name)
                if match is None:
                    continue
                try:
                    status = each.stat()
                except FileNotFoundError:
                    continue
                if status.st_ino == besides:
                    continue
                if match[3] == "part" and _is_orphan(each.path):
                    continue
                yield _Entry(each.name, status.st_size, status.st_mtime)

    @contextmanager
    def _folder_locked(self) -> Iterator[None]:
        deadline = time.monotonic() + _FOLDER_LOCK_S
        while (descriptor := _lock(os.path.join(self.folder, _FOLDER_LOCK))) is None:
            if time.monotonic() > deadline:
                raise _UnusableError(f"its lock {_FOLDER_LOCK} was not free for {_FOLDER_LOCK_S:g} s")
            time.sleep(0.005)
        self._held.add(descriptor)
        try:
            yield
        finally:
            self._held.discard(descriptor)
            _unlock(descriptor)

    def _touch(self, content: Content, descriptor: int) -> None:
        now_s = time.time()
        if now_s - self._touched.get(content, 0.0) < min(_TOUCH_S, self.in_use_s / 4):
            return
        if len(self._touched) > 4096:
            self._touched.clear()
        self._touched[content] = now_s
        try:
            os.utime(descriptor, (now_s, now_s))
        except PermissionError:  # another user's entry: it is evicted a little early
            return

    def _complain(self, what: str) -> None:
        if what not in self._complaints:
            self._complaints.add(what)
            logger.warning("%s", what)


def _lock(path: str) -> int | None:
    """Open a file, made if need be, and take its lock; None where another has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as problem:
            raise _UnusableError(problem.strerror) from problem
    except OSError as problem:
        raise _UnusableError(problem.strerror) from problem
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as problem:
        os.close(descriptor)
        raise _UnusableError(f"no locks there: {problem.strerror}") from problem


def _unlock(descriptor: int) -> None:
    # Said aloud: a child that was forked meanwhile holds a copy of the descriptor, and the lock with it.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _is_orphan(part: str) -> bool:
    """Remove a temporary whose writer is dead, which only its lock can tell; whether it was one."""
    descriptor = _lock(part)
    if descriptor is None:
        return False
    if _is_at(part, descriptor):
        _remove(part)
    _unlock(descriptor)
    return True


def _is_at(path: str, descriptor: int) -> bool:
    """Whether an open file is the one that bears this name now."""
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))


def _write(descriptor: int, data: bytes, offset: int) -> None:
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)
    except OSError as problem:
        raise _UnusableError(problem.strerror) from problem


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, PermissionError):
        return
