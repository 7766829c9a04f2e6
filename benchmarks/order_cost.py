"""CPU time and memory to find the next batch of a run that is far into an epoch: the order, a view, and batches by tokens.

    python -m benchmarks.order_cost [--rounds 5] [--mosaicml VENV/bin/python] [--litdata VENV/bin/python]

Ours: the order of an epoch of 4 million items in 4,000 shards, jumped into at 80 %; the same as a whole stream with a batch of
256 addresses; a billion items in 100,000 shards, in a fresh process, with its memory; a view of one item in a hundred of 100
million; and a far batch of 16,384 tokens of 10 million items.

The peers, where they are installed, go on at 80 % of the same epoch: MosaicML Streaming makes its partition and its shuffle,
LitData begins to iterate over a data set whose index names 4,000 chunks, all of them links to one, with the state of a loader.
They want different versions of other libraries, so each takes the Python of an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.rounds import spread
from shards.batching import TokenStream
from shards.bitmap import Bitmap, Visits
from shards.order import SourceSpec, Stream
from shards.plan import EpochOrder

ITEMS, SHARDS, BATCH = 4_000_000, 4_000, 256
_FRESH = """
import resource, time
import numpy
from shards.order import SourceSpec, Stream
sizes = (10_000,) * 100_000
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
stream = Stream({"x": SourceSpec(dataset_digest="d", sizes=sizes)}, batch_size=1_024, seed=0)
assert len(stream.batch(781_250)) == 1_024
print(time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
_MOSAICML = f"""
import time
import numpy
from streaming.base.partition import get_partitions
from streaming.base.shuffle import get_shuffle
began = time.process_time()
places = get_partitions("relaxed", {ITEMS}, 1, 1, 1, 1, {BATCH}, {ITEMS * 8 // 10})
shuffled = get_shuffle("py1e", numpy.full({SHARDS}, {ITEMS // SHARDS}), 1, 1, 3, 1 << 18)
chosen = numpy.where(places == -1, -1, shuffled[places])
print(time.process_time() - began)
"""
_LITDATA = f"""
import json, os, tempfile, time
from litdata import StreamingDataset
from litdata.streaming.writer import BinaryWriter
with tempfile.TemporaryDirectory() as folder:
    writer = BinaryWriter(folder, chunk_size={ITEMS // SHARDS})
    for number in range({ITEMS // SHARDS}):
        writer.add_item(number, number)
    writer.done()
    writer.merge()
    path = os.path.join(folder, "index.json")
    index = json.load(open(path))
    (chunk,) = index["chunks"]
    index["chunks"] = [dict(chunk, filename=f"link-{{number}}.bin") for number in range({SHARDS})]
    for each in index["chunks"]:
        os.link(os.path.join(folder, chunk["filename"]), os.path.join(folder, each["filename"]))
    json.dump(index, open(path, "w"))
    for counted in (False, True):
        items = StreamingDataset(folder, shuffle=True, seed=1)
        items.load_state_dict(items.state_dict({ITEMS * 8 // 10}, 1, {BATCH}))
        began = time.process_time()
        iter(items)
        if counted:
            print(time.process_time() - began)
"""
PEERS = {"mosaicml": _MOSAICML, "litdata": _LITDATA}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure by turns, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each side runs")
    for peer in PEERS:
        parser.add_argument(f"--{peer}", default=sys.executable, help=f"the Python that has {peer}; default: this one")
    options = parser.parse_args(arguments)
    rounds = options.rounds
    sides: dict[str, Callable[[], object]] = {"order_jump": jump, "stream_and_batch": stream_and_batch}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()  # uncounted: imports and first calls
    for number in range(rounds):
        names = list(sides)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.process_time()
            sides[name]()
            spent[name].append((time.process_time() - began) * 1_000)
    peers = {name: [_in_process(getattr(options, name), PEERS[name]) for _ in range(rounds)] for name in PEERS}
    fresh = [_in_process(sys.executable, _FRESH) for _ in range(rounds)]
    result = {
        "items": ITEMS,
        "cpu_ms": {name: spread(values) for name, values in spent.items()},
        **{
            f"{name}_cpu_ms": spread([each[0] * 1_000 for each in found]) if all(found) else "not installed"
            for name, found in peers.items()
        },
        "billion_items": {
            "cpu_ms": spread([seconds * 1_000 for seconds, _ in fresh]),
            "memory_mb": spread([kilobytes / 1_024 for _, kilobytes in fresh]),
        },
        "view_of_100_million": view_of_a_hundred_million(),
        "batch_of_tokens": batch_of_tokens(),
    }
    print(json.dumps(result, indent=2))
    return 0


def jump() -> object:
    """Lay the order of an epoch and find the item at 80 % of it."""
    order = EpochOrder(np.full(SHARDS, ITEMS // SHARDS), dataset_digest="d", seed=1, epoch=3)
    return order.at(ITEMS * 8 // 10)


def stream_and_batch() -> object:
    """Make a stream and list the batch at 80 % of its epoch."""
    spec = SourceSpec(dataset_digest="d", sizes=(ITEMS // SHARDS,) * SHARDS)
    return Stream({"x": spec}, batch_size=BATCH, seed=1).batch(ITEMS // BATCH * 8 // 10)


def view_of_a_hundred_million() -> dict[str, float]:
    """One item in a hundred of 100 million, of a made-up index: the first batch from the bitmap, and what the bitmap takes."""
    chosen = np.random.default_rng(0).random(10_000) < 0.01
    bitmap = Bitmap.of(np.roll(chosen, shard) for shard in range(10_000))
    bits, starts = bitmap.bits, bitmap.starts
    began = time.perf_counter()
    visits = Visits([Bitmap(bits, starts)])
    spec = SourceSpec(dataset_digest="d", sizes=tuple(visits.sizes.tolist()))
    found = [visits.item(each.shard, each.item) for each in Stream({"x": spec}, batch_size=BATCH, seed=0).batch(1_000)]
    seconds = time.perf_counter() - began
    return {"first_batch_s": seconds, "items": len(found), "bitmap_mb": bits.nbytes / 1e6}


def batch_of_tokens() -> dict[str, float]:
    """A batch of 16,384 tokens far into an epoch of 10 million items, of costs as captions have them."""
    costs = _MadeCosts(shards=10_000, items=1_000)
    spec = SourceSpec(dataset_digest="d", sizes=(1_000,) * 10_000)
    began = time.process_time()
    stream = TokenStream({"x": spec}, {"x": costs}, batch_tokens=16_384, parts=8, seed=0)
    items = len(stream.batch(7_000))
    return {"cpu_ms": (time.process_time() - began) * 1_000, "items": items}


class _MadeCosts:
    """Every shard holds the same costs, drawn once."""

    digest = "made"

    def __init__(self, *, shards: int, items: int) -> None:
        self._tokens = np.random.default_rng(0).poisson(13, items) + 1
        self.levels, counts = np.unique(self._tokens, return_counts=True)
        self.counts = np.repeat(counts[None].astype(np.int32), shards, axis=0)

    def of_shard(self, shard: int) -> NDArray[np.int64]:
        return self._tokens


def _in_process(python: str, script: str) -> list[float]:
    """The numbers that a script prints in a process of its own; none where it lacks a library."""
    done = subprocess.run([python, "-c", script], check=False, capture_output=True, text=True)
    if done.returncode and "ModuleNotFoundError" in done.stderr:
        return []
    done.check_returncode()
    return list(map(float, done.stdout.split()))


if __name__ == "__main__":
    sys.exit(main())
