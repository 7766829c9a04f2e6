"""Rows that belong together, brought together: a group-by for annotation files that are larger than memory.

Rows go to disk in buckets by the hash of their key, so that all rows of a key meet in one bucket and a bucket fits into memory;
the buckets' groups are then merged into one order. Keys are compared as they are, so equal hashes of different keys do no harm.
"""

from __future__ import annotations

import heapq
import marshal
import tempfile
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import xxhash

Group = tuple[str, list[Any]]  # a key and its rows, in the order of the file
Order = Callable[[str], Any]
_Ranked = tuple[Any, int, str, list[Any]]  # what the group is sorted by, number of its first row, key, rows

_IN_MEMORY = 100_000  # rows; more go to disk, and a bucket with more is divided once again
_BUCKETS = 128
_DIVISIONS = 2  # rows that so many more hashes cannot divide are of one key, and one group has to be held anyway
_ROWS_AT_ONCE = 256  # of a bucket, to and from the disk
_GROUPS_AT_ONCE = 32


def grouped(
    rows: Iterable[tuple[str, Any]], *, order: Order | None = None, in_memory: int = _IN_MEMORY
) -> Iterator[Group]:
    """Bring the rows of each key together.

    Args:
        rows: keys and values, read to the end before the first group comes; values are of JSON's types, or tuples of them.
        order: what groups are sorted by, of the key; unset, and among equals: by the first row of each.
        in_memory: how many rows may be held at a time.

    Yields:
        Every key with its values in the order of the rows.
    """
    numbered = ((number, key, value) for number, (key, value) in enumerate(rows))
    for _, _, key, values in _ranked(numbered, order or _by_first_row, in_memory, depth=0):
        yield key, values


def _by_first_row(key: str) -> int:
    return 0


def _ranked(rows: Iterable[tuple[int, str, Any]], order: Order, in_memory: int, *, depth: int) -> Iterator[_Ranked]:
    iterator = iter(rows)
    head = list(islice(iterator, in_memory))
    following = next(iterator, None)
    if following is None:
        yield from _collected(head, order)
        return
    if depth > _DIVISIONS:
        yield from _collected(_then(head, following, iterator), order)
        return
    with (
        tempfile.TemporaryFile(prefix="ostraka-rows-") as file,
        tempfile.TemporaryFile(prefix="ostraka-groups-") as done,
    ):
        buckets = _Pages(file, _ROWS_AT_ONCE)
        for row in _then(head, following, iterator):
            buckets.add(xxhash.xxh3_64_intdigest(row[1].encode("utf-8", "surrogatepass"), depth) % _BUCKETS, row)
        head.clear()
        sorted_groups = _Pages(done, _GROUPS_AT_ONCE)
        for bucket in range(_BUCKETS):
            for group in _ranked(buckets.read(bucket), order, in_memory, depth=depth + 1):
                sorted_groups.add(bucket, group)
        # Ranks are told apart by the number of the first row, so that keys and rows are never compared.
        yield from heapq.merge(*(sorted_groups.read(bucket) for bucket in range(_BUCKETS)), key=lambda group: group[:2])


def _collected(rows: Iterable[tuple[int, str, Any]], order: Order) -> Iterator[_Ranked]:
    groups: dict[str, _Ranked] = {}
    for number, key, value in rows:
        group = groups.get(key)
        if group is None:
            groups[key] = (order(key), number, key, [value])
        else:
            group[3].append(value)
    if order is _by_first_row:
        return iter(groups.values())  # a dictionary keeps this order
    return iter(sorted(groups.values(), key=lambda group: group[:2]))


def _then(head: list[Any], following: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield from head
    yield following
    yield from rest


class _Pages:
    """Lists of many kinds in one file: values are added in any order and read back kind by kind."""

    def __init__(self, file: BinaryIO, page_values: int) -> None:
        self._file = file
        self._page_values = page_values
        self._open: dict[int, list[Any]] = {}
        self._places: dict[int, list[tuple[int, int]]] = {}
        self._end = 0

    def add(self, kind: int, value: Any) -> None:
        page = self._open.setdefault(kind, [])
        page.append(value)
        if len(page) >= self._page_values:
            self._write(kind)

    def read(self, kind: int) -> Iterator[Any]:
        self._write(kind)
        for offset, size in self._places.get(kind, ()):
            self._file.seek(offset)
            yield from marshal.loads(self._file.read(size))

    def _write(self, kind: int) -> None:
        if page := self._open.pop(kind, None):
            data = marshal.dumps(page)  # our own file: nobody else can have written to it
            self._file.seek(self._end)
            self._file.write(data)
            self._places.setdefault(kind, []).append((self._end, len(data)))
            self._end += len(data)


class Repeats:
    """Which mention of an id is not the first, for any number of ids at eight bytes each.

    Ids are noted in the order of the file. Where two hashes are equal, the ids are gone through once again, so the answer is exact.
    """

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._first: dict[Hashable, int] | None = None

    def note(self, id: str) -> int:
        """Take the next id; returns its number."""
        self._hashes.append(xxhash.xxh3_64_intdigest(id.encode("utf-8", "surrogatepass")))
        return len(self._hashes) - 1

    def settle(self, again: Callable[[], Iterable[str]]) -> None:
        """Find the repeated ones, when all have been noted; `again` gives the same ids once more, in the same order."""
        values, counts = np.unique(np.frombuffer(self._hashes, dtype=np.uint64), return_counts=True)
        suspects = {int(value) for value in values[counts > 1]}
        first: dict[Hashable, int] = {}
        if suspects:
            for number, id in enumerate(again()):
                if self._hashes[number] in suspects:
                    first.setdefault(id, number)
        self._first = first

    @property
    def is_settled(self) -> bool:
        return self._first is not None

    def is_repeat(self, id: str, number: int) -> bool:
        """Whether the mention with this number is a later one than the id's first."""
        assert self._first is not None, "settle() comes first"
        return self._first.get(id, number) != number
