"""Other people's tars: what a dataset remembers of a tar that it was indexed from and never copies, and how its bytes are read.

Such a dataset has shards of its own, which hold nothing but record headers; the index of each says of every media member where
it lies in the foreign tar. So commits, manifest and ledger are those of any dataset, and no pixel is written a second time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import xxhash

from shards.codec import HEADER_MEMBER
from shards.errors import DatasetError
from shards.index import ShardIndex
from shards.patience import Patience
from shards.storage import Storage
from shards.stores import open_storage
from shards.tar_walk import Loss, TarWalk

UNCHECKED = (
    0  # in the index's place of a checksum: the member was never read (one content in 2^64 really hashes to this)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignTar:
    """A tar that somebody else wrote, as it was when it was indexed."""

    address: str  # absolute path or URL
    bytes: int
    stamp: str  # time of the last change in nanoseconds, or the store's ETag; "" where there is neither
    layout: str  # xxh3 over every member's name, place and size
    xxh3: str | None = None  # of the whole file; None where it was indexed without checksums

    @property
    def content(self) -> list[str | int]:
        """What identifies the bytes, wherever they lie; joins the manifest's digest."""
        return [self.bytes, self.layout, self.xxh3 or ""]

    def changed(self) -> str | None:
        """Say how the file differs from what was indexed, by size and stamp only; None where it does not.

        A copy has another stamp and the same bytes. So where every member carries a checksum, the stamp is not looked at:
        the first member that differs tells.

        Raises:
            DatasetError: the file is gone.
        """
        found = look_at(self.address)
        if found.bytes != self.bytes:
            return f"it has {found.bytes:,} bytes and had {self.bytes:,} when it was indexed"
        if self.xxh3 is None and self.stamp and found.stamp != self.stamp:
            return "it was written again after it was indexed, without checksums"
        return None

    def check_unchanged(self) -> None:
        """Raises `DatasetError` where `changed` has something to say."""
        how = self.changed()
        if how is not None:
            raise DatasetError(
                f"{self.address} changed: {how}; bring the old file back, or run `index` again with another output"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A file from outside."""

    bytes: int
    stamp: str


def place_of(address: str, *, patience: Patience | None = None) -> tuple[Storage, str]:
    """The storage that holds a file, and the file's name in it."""
    folder, _, name = address.rpartition("/")
    return open_storage(folder or "/", patience=patience), name


def look_at(address: str) -> Seen:
    """Size and stamp of a tar, without opening it.

    Raises:
        DatasetError: there is no such file.
    """
    missing = f"{address} is missing; bring the tar back to where it was indexed, or run `index` again"
    if "://" not in address:
        try:
            found = os.stat(address)
        except OSError as problem:
            raise DatasetError(missing) from problem
        return Seen(bytes=found.st_size, stamp=str(found.st_mtime_ns))
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
        info = Patience().ask(address, lambda: system.info(path))
    except FileNotFoundError as problem:
        raise DatasetError(missing) from problem
    if info.get("size") is None:
        raise DatasetError(f"{address}: its server does not say how large it is; download the tar and index the copy")
    stamp = next((info[name] for name in ("ETag", "etag", "LastModified", "mtime", "created") if info.get(name)), "")
    return Seen(bytes=int(info["size"]), stamp=str(stamp))


def check_foreign(tar: ForeignTar, index: ShardIndex) -> Iterator[tuple[str | None, str]]:
    """Check a foreign tar against what was indexed; yields (key, what) per damage, the key None for the file as a whole.

    Reads every byte where the tar was indexed with checksums; else its headers only.
    """
    try:
        storage, name = place_of(tar.address)
        how = tar.changed()
        if how is not None:
            yield (
                None,
                f"{tar.address} changed: {how}; bring the old file back, or run `index` again with another output",
            )
            return
        with storage.open_read(name) as handle:
            walk = TarWalk(handle, size=tar.bytes, whole=tar.xxh3 is not None)
            broken = sum(isinstance(member, Loss) for member in walk.walk())
            same = walk.xxh3 == tar.xxh3 and walk.layout == tar.layout
            damaged = 0
            for key, extension in _damaged(handle, index):
                damaged += 1
                yield key, f"its {extension!r} member in {tar.address} does not match its checksum"
    except (OSError, DatasetError) as problem:
        yield None, str(problem)
        return
    if not same:
        place = "" if damaged else ", although no member that a record needs is damaged"
        headers = f" and {broken} headers are damaged" if broken else ""
        yield None, f"{tar.address} is not what it was when it was indexed{headers}{place}; bring the old file back"


def _damaged(tar: BinaryIO, index: ShardIndex) -> Iterator[tuple[str, str]]:
    """Key and extension of every media member whose bytes are not those that were indexed."""
    for row, key in enumerate(index.keys):
        for extension, offset, size, xxh3 in index.members(row):
            if extension == HEADER_MEMBER or xxh3 == UNCHECKED:
                continue
            tar.seek(offset)
            if xxhash.xxh3_64_intdigest(tar.read(size)) != xxh3:
                yield key, extension
