"""Sides of a comparison that stay warm in processes of their own and run once whenever they are told to, by turns."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from benchmarks.rounds import Side, Step, compare

LEAST_S = 0.3
ROOT = Path(__file__).resolve().parent.parent
Clock = Literal["cpu_s", "wall_s"]
Work = Callable[[], int]  # does a side's work once; gives the number of records that it handled


def serve(work: Work) -> None:
    """Run some work for every line on standard input, and answer each with what it cost. For the side's process.

    Short work is done again and again for `LEAST_S`, and what once cost is answered. What the process's ended children cost is
    counted; of those still alive, nothing.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints must not be taken for an answer
    print("{}", file=answers, flush=True)
    for _ in sys.stdin:
        began, cpu_began, times, spent = time.perf_counter(), _cpu_s(), 0, 0.0
        while spent < LEAST_S:
            records = work()
            times, spent = times + 1, time.perf_counter() - began
        cost = {"records": records, "cpu_s": (_cpu_s() - cpu_began) / times, "wall_s": spent / times}
        print(json.dumps(cost), file=answers, flush=True)


def compare_in_turns(
    sides: Mapping[str, Sequence[str]], *, rounds: int, clock: Clock, claim: str, floor: str, floor_is: str
) -> dict[str, Any]:
    """Compare sides that are commands which `serve`.

    Args:
        sides: `ours`, the floor and the peers, each a command line. A peer that does not start is named under `absent`.
        rounds: how often each side runs; once more comes first, uncounted.
        clock: the seconds that count.
        claim: what is measured.
        floor: which of the sides is the floor.
        floor_is: what the floor does.
    """
    absent: dict[str, str] = {}
    with ExitStack() as running:
        live: dict[str, Side] = {}
        for name, command in sides.items():
            try:
                live[name] = running.enter_context(_living(command, clock))
            except _DidNotRun as problem:
                if name in ("ours", floor):
                    raise SystemExit(f"{name} does not run: {problem}") from problem
                absent[name] = str(problem)
        peers = {name: side for name, side in live.items() if name not in ("ours", floor)}
        step = Step(name=claim, ours=live["ours"], floor=live[floor], floor_is=floor_is, peers=peers)
        return {"claim": claim, "clock": clock, "rounds": rounds, "absent": absent, **compare(step, rounds=rounds)}


class _DidNotRun(Exception):
    pass


@contextmanager
def _living(command: Sequence[str], clock: Clock) -> Iterator[Side]:
    # One thread for everybody: what counts is work done.
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        ask, hear = process.stdin, process.stdout

        def answer() -> dict[str, float]:
            line = hear.readline()
            if not line:
                process.wait()
                said.seek(0)
                raise _DidNotRun(said.read().strip()[-300:])
            heard: dict[str, float] = json.loads(line)
            return heard

        def cost() -> dict[str, float]:
            print(file=ask, flush=True)
            return answer()

        try:
            answer()
            first = cost()
            yield Side(records=int(first["records"]), run=lambda: cost()[clock])
        finally:
            process.kill()


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
