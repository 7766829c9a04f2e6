"""Reading a local shard from end to end: members of all records in file order, in a few large reads, each checked, none parsed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import xxhash

from shards.index import ShardIndex

_STRETCH = 1 << 19  # bytes of one read: few calls, and still in the processor's cache when they are hashed
_GAP = 1 << 12  # tar headers and padding between neighbours are less


def sweep(path: str, index: ShardIndex) -> Iterator[dict[str, memoryview] | None]:
    """Read the members of every record of a shard, in the order of its index.

    The bytes of neighbouring records lie in one piece of memory, which stays as long as any of them is kept.

    Args:
        path: of the tar, a file of this machine.
        index: says where its members are and what they hash to.

    Yields:
        For each record its members, extension to bytes; None where one of them is not what the index says, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield from (None for _ in range(len(index)))
        return
    try:
        for rows, start, end in stretches(index):
            try:
                data = memoryview(os.pread(descriptor, end - start, start))
            except OSError:
                yield from (None for _ in rows)
                continue
            for places in index.places(rows):
                members: dict[str, memoryview] = {}
                for extension, offset, size, xxh3 in places:
                    member = data[offset - start : offset - start + size]
                    if xxhash.xxh3_64_intdigest(member) != xxh3 or len(member) != size:
                        break
                    members[extension] = member
                else:
                    yield members
                    continue
                yield None
    finally:
        os.close(descriptor)


def stretches(index: ShardIndex, most: int = _STRETCH) -> Iterator[tuple[range, int, int]]:
    """Cut a shard into runs of rows whose bytes are read at once: rows, first byte, byte behind the last.

    A run ends where it grows beyond `most` bytes, or where rows between were left out; a larger record is a run of its own.
    """
    starts, ends = index.extents()
    first = 0
    for row in range(1, len(starts) + 1):
        is_over = row == len(starts) or ends[row] - starts[first] > most or starts[row] - ends[row - 1] > _GAP
        if is_over:
            yield range(first, row), starts[first], ends[row - 1]
            first = row
