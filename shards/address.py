"""Addresses: where an item of the training order lies, and what its random choices are keyed by."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import xxhash


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One slot's item. `item` is a record row, or counts annotations through the shard: the stream's reader knows which."""

    source: str
    shard: int  # row of the source's manifest
    item: int  # within the shard
    epoch: int  # of the source
    position: int  # in the source's epoch


def keyed_bits(*parts: str | int) -> int:
    """Hash an address to 64 bits; neighbours, and parts that only concatenate alike, come out unrelated."""
    return xxhash.xxh3_64_intdigest(json.dumps(parts, separators=(",", ":")).encode())


def example_seed(seed: int, epoch: int, key: str) -> int:
    """Derive the 64-bit seed of everything that is drawn for one example in one epoch."""
    return keyed_bits("example", seed, epoch, key)


def example_rng(seed: int, epoch: int, key: str) -> np.random.Generator:
    """Start the generator of one example in one epoch, whichever rank, worker or restart asks for it."""
    return np.random.Generator(np.random.PCG64(example_seed(seed, epoch, key)))
