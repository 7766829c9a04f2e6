"""Reading a shard from end to end: members of all records in file order, in a few large reads, each checked, none parsed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import xxhash

from shards.errors import DamagedRecordError, DatasetError
from shards.index import ShardIndex, tar_path

if TYPE_CHECKING:
    from shards.reader import Dataset

_STRETCH = 1 << 19  # bytes of one read: few calls, and still in the processor's cache when they are hashed


def sweep(dataset: Dataset, shard: int) -> Iterator[tuple[str, dict[str, memoryview]]]:
    """Read the records of a local shard of ours in order, as key and members, extension to bytes.

    The bytes of neighbouring records lie in one piece of memory, which stays as long as any of them is kept.

    Raises:
        DamagedRecordError: a member is cut off or does not match its checksum; names shard, key and member.
        DatasetError: the shard is missing.
    """
    index = dataset.index(shard)
    with _opened(dataset.storage.path(tar_path(index.name))) as descriptor:
        for rows, start, end in stretches(index):
            data = memoryview(os.pread(descriptor, end - start, start))
            for key, places in zip(index.keys[rows.start : rows.stop], index.places(rows), strict=True):
                members: dict[str, memoryview] = {}
                for extension, offset, size, xxh3 in places:
                    member = data[offset - start : offset - start + size]
                    if xxhash.xxh3_64_intdigest(member) != xxh3 or len(member) != size:
                        raise DamagedRecordError(
                            f"{dataset.path}: shard {index.name}, record {key!r}: its {extension!r} member "
                            + (
                                "does not match its checksum"
                                if len(member) == size
                                else f"ends after {len(member)} of {size} bytes"
                            )
                        )
                    members[extension] = member
                yield key, members


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


_GAP = 1 << 12  # tar headers and padding between neighbours are less


@contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as problem:
        raise DatasetError(f"{path} is missing; run the `verify` verb on the dataset") from problem
    try:
        yield descriptor
    finally:
        os.close(descriptor)
