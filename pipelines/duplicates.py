"""Which pictures of a dataset show the same thing: equal bytes, or perceptual hashes a few bits apart.

The result depends on the order of the items and on nothing else, so any number of workers may compute the fingerprints.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import xxhash

from shards.config import canonical_json
from shards.errors import MissingLibraryError
from shards.plain import to_plain
from shards.records import Record

BITS = 64  # of a perceptual hash
By = Literal["content", "perceptual"]
_PAIRS_AT_A_TIME = 1 << 22
_LARGEST_DISTANCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What is compared of one item. An item without pictures has no `perceptual` and is compared by its bytes alone."""

    content: int  # 64 bits of xxh3 over all its media, or over its annotations where it has none
    perceptual: int | None = None  # 64 bits; of several pictures, their hashes mixed


def fingerprint(record: Record, *, by: By) -> Fingerprint:
    """Take the fingerprint of a record with its payload. A picture that cannot be decoded is compared by its bytes.

    The perceptual hash is pHash: the signs, against their median, of the lowest 8x8 frequencies of the grey picture at 32x32
    (Zauner, Implementation and benchmarking of perceptual image hash functions, 2010).

    Raises:
        MissingLibraryError: `imagehash` is not installed.
    """
    whole = xxhash.xxh3_64()
    for media in record.media:
        whole.update(record.payload[media.member])
    if not record.media:
        whole.update(canonical_json([to_plain(replace(annotation, id=None)) for annotation in record.annotations]))
    pictures = [record.payload[media.member] for media in record.media if media.kind == "image"]
    if by == "content" or len(pictures) != len(record.media) or not pictures:
        return Fingerprint(content=whole.intdigest())
    try:
        hashes = [_perceptual(data) for data in pictures]
    except (OSError, SyntaxError, ValueError):  # as Pillow says that a picture is broken inside
        return Fingerprint(content=whole.intdigest())
    mixed = hashes[0]
    for number, value in enumerate(hashes[1:], start=1):
        mixed ^= (value << number | value >> (BITS - number)) & (
            1 << BITS
        ) - 1  # so that a pair of pictures has an order
    return Fingerprint(content=whole.intdigest(), perceptual=mixed)


def repeats(fingerprints: Sequence[Fingerprint], *, distance: int) -> dict[int, int]:
    """Find the items that repeat an earlier one that is kept: place → place of the one kept.

    An item repeats another if their bytes are equal, or if their perceptual hashes differ in at most `distance` bits. Items are
    gone through in order, and what has been dropped drops no others, so chains of gradual change are not swallowed whole.

    Args:
        fingerprints: in the order of the dataset.
        distance: 0 to 16 bits. Re-encoding and resizing change 0 to 4; above 8 different pictures begin to be taken for one.
    """
    firsts = _firsts(fingerprints)
    earlier_of: dict[int, list[int]] = {}
    for earlier, later in _near_pairs(fingerprints, firsts, distance=distance):
        earlier_of.setdefault(later, []).append(earlier)
    dropped: dict[int, int] = {}
    for later in sorted(earlier_of):
        kept = [earlier for earlier in earlier_of[later] if earlier not in dropped]
        if kept:
            dropped[later] = min(kept)
    for place, first in enumerate(firsts.tolist()):
        if first != place:
            dropped[place] = dropped.get(first, first)
    return dropped


def leaks(fingerprints: Sequence[Fingerprint], *, against: Sequence[Fingerprint], distance: int) -> dict[int, int]:
    """Find the items that repeat one of another dataset: place → the first place there. `distance` as in `repeats`."""
    joined = [*against, *fingerprints]
    firsts = _firsts(joined)
    found: dict[int, int] = {}
    for earlier, later in _near_pairs(joined, firsts, distance=distance):
        if earlier < len(against) <= later:
            found[later] = min(earlier, found.get(later, earlier))
    leaked: dict[int, int] = {}
    for place, first in enumerate(firsts.tolist()[len(against) :]):
        # Equal items share their first one: it is in the other dataset itself, or what it repeats there is repeated by all.
        there = first if first < len(against) else found.get(first)
        if there is not None:
            leaked[place] = there
    return leaked


def _firsts(fingerprints: Sequence[Fingerprint]) -> npt.NDArray[np.int64]:
    """For every item the first one that equals it: in its perceptual hash, or in its bytes where it has none."""
    has_hash = np.fromiter((print.perceptual is not None for print in fingerprints), np.bool_, len(fingerprints))
    firsts = np.arange(len(fingerprints))
    for places in (np.flatnonzero(has_hash), np.flatnonzero(~has_hash)):
        values = (_compared(fingerprints[place]) for place in places.tolist())
        _, first, inverse = np.unique(
            np.fromiter(values, np.uint64, len(places)), return_index=True, return_inverse=True
        )
        firsts[places] = places[first[inverse]] if len(places) else places
    return firsts


def _compared(print: Fingerprint) -> int:
    return print.content if print.perceptual is None else print.perceptual


def _near_pairs(
    fingerprints: Sequence[Fingerprint], firsts: npt.NDArray[np.int64], *, distance: int
) -> Iterator[tuple[int, int]]:
    """Yield (earlier, later) of first items whose perceptual hashes differ in 1 to `distance` bits, possibly more than once.

    Two hashes of 64 bits that differ in at most d places agree in at least one of d + 1 bands, so only pairs within the groups
    of a band need a look, and no near pair is missed.
    """
    if not 0 <= distance <= _LARGEST_DISTANCE:
        raise ValueError(f"distance={distance} is not from 0 to {_LARGEST_DISTANCE} bits")
    own = np.flatnonzero(firsts == np.arange(len(firsts)))
    places = np.array([place for place in own.tolist() if fingerprints[place].perceptual is not None], dtype=np.int64)
    hashes = np.fromiter((_compared(fingerprints[place]) for place in places.tolist()), np.uint64, len(places))
    if distance == 0 or len(hashes) < 2:
        return
    for low, high in _bands(distance + 1):
        values = hashes >> np.uint64(low) & np.uint64((1 << high - low) - 1)
        order = np.argsort(values, kind="stable")
        starts = np.flatnonzero(np.diff(values[order])) + 1
        for group in np.split(order, starts):
            yield from _near(hashes[group], places[group], distance=distance)


def _near(hashes: npt.NDArray[np.uint64], places: npt.NDArray[np.int64], *, distance: int) -> Iterator[tuple[int, int]]:
    """All near pairs of one group; its places ascend."""
    rows = max(1, _PAIRS_AT_A_TIME // max(len(hashes), 1))
    for start in range(0, len(hashes) if len(hashes) > 1 else 0, rows):
        differing = np.bitwise_count(hashes[start : start + rows, None] ^ hashes[None, :])
        left, right = np.nonzero(differing <= distance)
        ordered = left + start < right
        yield from zip(places[left[ordered] + start].tolist(), places[right[ordered]].tolist(), strict=True)


def _bands(count: int) -> Iterator[tuple[int, int]]:
    """Cut the bits of a hash into bands of nearly equal width: (lowest bit, one past the highest)."""
    edges = np.linspace(0, BITS, count + 1).round().astype(int).tolist()
    yield from pairwise(edges)


def _perceptual(data: bytes) -> int:
    try:
        import imagehash
        from PIL import Image
    except ImportError as problem:
        raise MissingLibraryError(
            "perceptual duplicates need imagehash: install the extra, ostraka[duplicates]"
        ) from problem
    with Image.open(io.BytesIO(data)) as picture:
        # Far more pixels than the hash looks at are of no use; a JPEG is decoded at an eighth where it is large enough.
        picture.draft("L", (256, 256))
        bits = imagehash.phash(picture.convert("L")).hash.ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2)
