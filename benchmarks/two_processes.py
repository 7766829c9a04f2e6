"""Two processes of a run beside one, at the same global batch: what is lost in the compute part, and in the whole step.

    OMP_NUM_THREADS=1 python -m benchmarks.two_processes [batch=16] [rounds=3] [shape=small]

On an otherwise idle machine of two cores or more; one thread each, gradients averaged by DDP over gloo. The compute part is forward
and backward without the exchange of gradients, and the whole step adds the exchange, which on one machine's CPUs is no claim about
a cluster, and AdamW. Efficiency is the one process's seconds over twice those of the slower of the two, by turns.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from benchmarks.rounds import spread
from benchmarks.step_sides import HORIZON, SHAPES, Shape, random_pairs, shape_config
from model.families.vicha.model import Vicha
from model.family import Progress
from trainers.distributed import joined_group
from trainers.optim import CosineSchedule, OptimConfig, build_optimizer
from trainers.parallel import lay_out
from trainers.step import TrainStep

ROOT = Path(__file__).resolve().parent.parent
Costs = dict[str, float]


def serve(shape: Shape, count: int) -> None:
    """Take one compute part and one whole step for every line on standard input; answer with their seconds.

    Args:
        shape: of the model.
        count: pictures of this process.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with joined_group("cpu") as group:
        family = Vicha(shape_config(shape, dropout=0.0)).train()
        pairs = random_pairs(family.config, count, words=25, concepts=12, seed=group.rank)
        parallel = lay_out(family, group)
        optimizer = build_optimizer(family, OptimConfig(), lr=1e-4)
        step = TrainStep(
            family,
            optimizer,
            schedule=CosineSchedule(lr=1e-4, min_lr=1e-5, warmup_steps=10),
            horizon=HORIZON,
            group=group,
            seed=0,
            parallel=parallel,
        )
        later = HORIZON.steps_per_epoch  # soft targets count in full

        def compute() -> None:
            with parallel.exchange(last=False):
                losses = parallel.module(pairs, Progress(step=later, steps_per_epoch=later))
                torch.autograd.backward(losses.total)

        def answer(costs: Costs) -> None:
            print(json.dumps(costs), flush=True)

        answer({})
        for _ in sys.stdin:
            optimizer.zero_grad(set_to_none=True)
            group.barrier()
            costs = {f"compute_{clock}": spent for clock, spent in _spent(compute).items()}
            group.barrier()
            answer(costs | {f"step_{clock}": spent for clock, spent in _spent(lambda: step([pairs], later)).items()})


def _spent(work: Callable[[], object]) -> Costs:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


class Team:
    """One or two processes that take their steps whenever they are told to."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        self._processes = processes
        for process in processes:
            _hear(process)

    def costs(self) -> list[Costs]:
        """Let every process take its steps, and give what each spent."""
        for process in self._processes:
            print(file=_pipe(process.stdin), flush=True)
        return [_hear(process) for process in self._processes]


@contextmanager
def team(world: int, shape: str, batch: int) -> Iterator[Team]:
    """Start the processes of a run, each with its share of the batch."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    command = [sys.executable, "-m", "benchmarks.two_processes", "serve", shape, str(batch // world)]
    with ExitStack() as running:
        processes = []
        for rank in range(world):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | meeting | place,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            running.callback(process.wait)
            running.callback(process.kill)
            processes.append(process)
        yield Team(processes)


def measure(shape: str, *, batch: int, rounds: int) -> dict[str, Any]:
    """Let one process and two take turns, after one uncounted turn of each.

    Returns:
        Seconds of both and the efficiency, of the compute part and of the whole step; by the wall, which is what counts, and by CPU
        seconds of all processes together, which also hold on a busy machine.
    """
    found: dict[str, dict[str, list[float]]] = {}
    with team(1, shape, batch) as alone, team(2, shape, batch) as both:
        for each_team in (alone, both):
            each_team.costs()
        for number in range(rounds):
            ((one,), two) = (alone.costs(), both.costs()) if number % 2 else _reversed(alone, both)
            for name, spent in one.items():
                each = [costs[name] for costs in two]
                # Twice the slower one's wall time, but all that both computed.
                whole = 2 * max(each) if name.endswith("wall_s") else sum(each)
                figures = found.setdefault(name, {"one": [], "two": [], "efficiency": []})
                figures["one"].append(spent)
                figures["two"].append(max(each))
                figures["efficiency"].append(spent / whole)
    return {name: {kind: spread(values) for kind, values in figures.items()} for name, figures in found.items()}


def _reversed(alone: Team, both: Team) -> tuple[list[Costs], list[Costs]]:
    two = both.costs()
    return alone.costs(), two


def _hear(process: subprocess.Popen[str]) -> Costs:
    line = _pipe(process.stdout).readline()
    if not line:
        raise SystemExit(f"a process of the comparison stopped (exit status {process.wait()}); see what it said above")
    costs: Costs = json.loads(line)
    return costs


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def main() -> None:
    """Measure; print JSON."""
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], int(sys.argv[3]))  # type: ignore[arg-type]  # written by `team`
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="batch= (even) rounds= shape=small|base|tiny")
    said = dict(each.split("=", 1) for each in parser.parse_args().settings)
    shape, batch, rounds = said.get("shape", "small"), int(said.get("batch", 16)), int(said.get("rounds", 3))
    if shape not in SHAPES or batch % 2:
        raise SystemExit(f"shape={shape} batch={batch}: shapes are {', '.join(SHAPES)}, and a batch is even")
    result = {"shape": shape, "batch": batch, "rounds": rounds, "cpus": len(os.sched_getaffinity(0))}
    print(
        json.dumps(
            {**result, **measure(shape, batch=batch, rounds=rounds), "started": time.strftime("%Y-%m-%d")}, indent=1
        )
    )


if __name__ == "__main__":
    main()
