"""How near the order of an epoch comes to a true permutation, by how many shards are shuffled together.

    python -m benchmarks.shuffle_quality [--shards 1024] [--items 256] [--batch 256] [--epochs 3]

Beside each measure stands the same one of true permutations (numpy's):

- displacement: the mean of |position in the epoch - position in the manifest| over the items, as a share of the epoch; a third
  for a true permutation;
- shards in a batch, and how often two items of a batch come from one shard, over chance;
- how often two items that shared a batch share one again in the next epoch, over chance.

Shards are drawn from the whole dataset whatever the window, so displacement is right even for one; a batch holds items of at
most as many shards as a window has, so the others come near chance as the window grows past the batch's size.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from shards.plan import EpochOrder

Integers = NDArray[np.int64]

WINDOWS = (1, 4, 16, 64, 256)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every window, and true permutations; print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=1_024)
    parser.add_argument("--items", type=int, default=256, help="in each shard")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args(arguments)
    total = options.shards * options.items
    orders = {
        f"window={window}": [epoch_of(options.shards, options.items, window, epoch) for epoch in range(options.epochs)]
        for window in WINDOWS
        if window <= options.shards
    }
    orders["true permutation"] = [np.random.default_rng(epoch).permutation(total) for epoch in range(options.epochs)]
    rows = {name: quality(epochs, items=options.items, batch=options.batch) for name, epochs in orders.items()}
    print(
        json.dumps(
            {"shards": options.shards, "items_per_shard": options.items, "batch": options.batch, "orders": rows},
            indent=2,
        )
    )
    return 0


def epoch_of(shards: int, items: int, window: int, epoch: int) -> Integers:
    """List an epoch: (shards · items,) numbers of the items through the manifest."""
    order = EpochOrder(np.full(shards, items), dataset_digest="measured", seed=0, epoch=epoch, window=window)
    rows, within = order.at_many(np.arange(len(order), dtype=np.int64))
    return rows * items + within


def quality(epochs: Sequence[Integers], *, items: int, batch: int) -> dict[str, float]:
    """Measure the orders of several epochs of the same items.

    Args:
        epochs: (total,) each, items by position.
        items: in each shard.
        batch: items of a batch.
    """
    total = len(epochs[0])
    positions = np.arange(total)
    displaced, touched, together = [], [], []
    for order in epochs:
        displaced.append(np.abs(order - positions).mean() / total)
        shards = np.sort((order // items)[: total // batch * batch].reshape(-1, batch), axis=1)
        touched.append(1 + (np.diff(shards, axis=1) > 0).sum(axis=1).mean())
        together.append(_pairs(shards).mean() / (batch * (batch - 1) / 2))
    return {
        "displacement": round(float(np.mean(displaced)), 4),
        "shards_per_batch": round(float(np.mean(touched)), 1),
        "same_shard_over_chance": round(float(np.mean(together) / ((items - 1) / (total - 1))), 2),
        "meeting_again_over_chance": round(_meeting_again(epochs, batch), 2),
    }


def _pairs(rows: Integers) -> NDArray[np.float64]:
    """Pairs of equal values in each sorted row: (rows,)."""
    found = np.empty(len(rows))
    for number, row in enumerate(rows):
        counts = np.unique(row, return_counts=True)[1]
        found[number] = (counts * (counts - 1) / 2).sum()
    return found


def _meeting_again(epochs: Sequence[Integers], batch: int) -> float:
    """How often two items that shared a batch share one in the next epoch, over chance."""
    total = len(epochs[0])
    ratios = []
    for before, after in pairwise(epochs):
        batch_after = np.empty(total, dtype=np.int64)
        batch_after[after] = np.arange(total) // batch
        rows = np.sort(batch_after[before][: total // batch * batch].reshape(-1, batch), axis=1)
        share = _pairs(rows).mean() / (batch * (batch - 1) / 2)
        ratios.append(share / ((batch - 1) / (total - 1)))
    return float(np.mean(ratios))


if __name__ == "__main__":
    sys.exit(main())
