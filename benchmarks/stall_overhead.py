"""What the stall report costs: the calls that measure, alone, beside the loader that they measure.

    python -m benchmarks.stall_overhead [--photos 320] [--rounds 9]

The loader of the `vicha` preset makes an epoch, and every call to its stopwatch is counted by name. Then, by turns, the epoch is
made again and as many calls are made with nothing in between. (Measuring the loader with and without a stopwatch would not
do: it differs by less than two runs of the same thing.)
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.loader_speed import captioned_world, ours
from benchmarks.rounds import spread


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, measure by turns, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=320, help="how many photos of 640x480")
    parser.add_argument("--rounds", type=int, default=9, help="how often each side runs")
    options = parser.parse_args(arguments)
    from trainers.stopwatch import Stopwatch

    with tempfile.TemporaryDirectory() as place:
        work = ours(captioned_world(Path(place), photos=options.photos), 0, "worker")
        with _counted(Stopwatch) as calls:
            records = work()
        stopwatch, shares, costs = Stopwatch(), [], []
        for _ in range(options.rounds):
            whole = _cpu_s(work)
            measuring = _cpu_s(lambda: _again(stopwatch, calls))
            shares.append(measuring / whole)
            costs.append(measuring / records * 1e6)
    figures = {
        "records": records,
        "calls": dict(calls),
        "cpu_us_per_record": spread(costs),
        "share_of_the_loader": spread(shares),
    }
    print(json.dumps(figures, indent=1))
    return 0


@contextmanager
def _counted(kind: type[Any]) -> Iterator[Counter[str]]:
    """Count the calls to every public method of a class."""
    calls: Counter[str] = Counter()
    methods = {name: method for name, method in vars(kind).items() if not name.startswith("_")}

    def counting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            calls[name] += 1
            return method(*arguments)

        return called

    for name, method in methods.items():
        is_static = isinstance(method, staticmethod)
        wrapped = counting(name, method.__func__ if is_static else method)
        setattr(kind, name, staticmethod(wrapped) if is_static else wrapped)
    try:
        yield calls
    finally:
        for name, method in methods.items():
            setattr(kind, name, method)


def _again(stopwatch: Any, calls: Counter[str]) -> None:
    """Make as many calls as were counted."""
    for _ in range(calls["now"]):
        stopwatch.now()
    began = stopwatch.now()
    for _ in range(calls["add"]):
        stopwatch.add("decode", began)
    for _ in range(calls["credit"]):
        stopwatch.credit("read", 0.0)
    for _ in range(calls["take"]):
        stopwatch.take()


def _cpu_s(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    sys.exit(main())
