"""The trials of `benchmarks.chaos` that need a Ray cluster: workers, drivers and whole nodes are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.chaos_world import ROOT, World, finish, problem_with
from benchmarks.saboteur import Moment, Saboteur
from jobs.config import load_config
from jobs.ray_executor import RayExecutor
from jobs.verbs.shards import Config
from pipelines.convert import ConvertConfig, convert_unit, plan_units
from pipelines.source import Unit
from shards.writer import UnitReport

Act = Callable[[World, Path, random.Random], tuple[int, str | None]]

NODES = 2  # with one worker each; the head has none, so that a lost node never takes the driver with it
STORE_BYTES = 100 * 1024 * 1024
DRIVER_S = 6.0  # within which a driver is killed: attaching, converting, merging
MOMENTS: tuple[Moment, ...] = ("before", "during", "after")


@contextmanager
def local_cluster() -> Iterator[tuple[Any, list[Any]]]:
    """Start a cluster of several nodes on this machine, and attach to it; gives the cluster and its worker nodes."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # loopback only
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    )
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [add_node(cluster) for _ in range(NODES)]
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster, nodes
    finally:
        ray.shutdown()
        cluster.shutdown()


def add_node(cluster: Any) -> Any:
    """Add a node with one worker."""
    return cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)


@contextmanager
def cluster_acts() -> Iterator[dict[str, Act]]:
    """Start a cluster, and give the trials that run on it."""
    with local_cluster() as (cluster, nodes):
        yield {
            "worker": kill_workers,
            "driver": partial(kill_the_driver, cluster.address),
            "node": partial(kill_a_node, cluster, nodes),
        }


def kill_workers(world: World, output: Path, rng: random.Random) -> tuple[int, str | None]:
    """Workers that have certain units die at a random operation on the disk, and the run goes on with others."""
    config = _config(world, output)
    marks = output.with_name(f"{output.name}-marks")
    marks.mkdir()
    deaths = {unit.index: rng.randint(1, 12) for unit in plan_units(config) if rng.random() < 0.5}
    work = partial(_mortal, config, deaths, str(marks), rng.choice(MOMENTS))
    with closing(RayExecutor(workers=NODES).run(work, plan_units(config))) as run:
        for _ in run:
            pass
    kills = len(list(marks.iterdir()))
    return kills, problem_with(output, world) or finish(world.words, output, world.first)


def kill_a_node(
    cluster: Any, nodes: list[Any], world: World, output: Path, rng: random.Random
) -> tuple[int, str | None]:
    """A node goes, raylet, workers and all, in the midst of a run that loses no unit by it."""
    config = _config(world, output)

    def strike() -> None:
        time.sleep(rng.uniform(0, 1.5))
        cluster.remove_node(nodes.pop(rng.randrange(len(nodes))), allow_graceful=False)

    killer = threading.Thread(target=strike)
    killer.start()
    with closing(RayExecutor(workers=NODES).run(partial(_slow, config), plan_units(config))) as run:
        for _ in run:
            pass
    killer.join()
    nodes.append(add_node(cluster))
    return 1, problem_with(output, world) or finish(world.words, output, world.first)


def kill_the_driver(address: str, world: World, output: Path, rng: random.Random) -> tuple[int, str | None]:
    """The process that was started by hand is killed, while its tasks are running on the cluster."""
    words = [*world.words, f"output={output}", "executor=ray", f"address={address}", f"workers={NODES}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(rng.uniform(0.5, DRIVER_S))
        kills = 0
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills = 1
    return kills, problem_with(output, world) or finish(world.words, output, world.first)


def _config(world: World, output: Path) -> ConvertConfig:
    return load_config(Config, None, [*world.words[1:], f"output={output}"], verb="shards").conversion()


def _mortal(config: ConvertConfig, deaths: dict[int, int], marks: str, moment: Moment) -> Callable[[Unit], UnitReport]:
    def work(unit: Unit) -> UnitReport:
        mark = Path(marks) / str(unit.index)
        if unit.index in deaths and not mark.exists():
            mark.touch()
            Saboteur(at=deaths[unit.index], moment=moment)
        return convert_unit(config, unit)

    return work


def _slow(config: ConvertConfig) -> Callable[[Unit], UnitReport]:
    def work(unit: Unit) -> UnitReport:
        report = convert_unit(config, unit)
        time.sleep(0.2)  # so that a node is lost while it works
        return report

    return work
