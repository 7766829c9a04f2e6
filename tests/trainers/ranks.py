"""Two processes of a run on this machine, speaking gloo: a function of the group, called on each."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import multiprocessing

from trainers.distributed import joined_group

PATIENCE_S = 180


def on_ranks(work: Callable[..., Any], *args: Any, world: int = 2) -> list[Any]:
    """Call `work(group, *args)` on every rank, and give what it returns, by rank.

    Args:
        work: a module-level function, whose result can be pickled and holds no tensor.
        args: likewise.
        world: how many processes.

    Raises:
        AssertionError: with the traceback of the rank on which it failed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    places = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
    meeting = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [context.Process(target=_join, args=(place | meeting, results, work, args)) for place in places]
    for process in processes:
        process.start()
    try:
        found = dict([results.get(timeout=PATIENCE_S) for _ in processes])
        for rank, (failure, _) in sorted(found.items()):
            assert failure is None, f"rank {rank}: {failure}"
        return [result for _, (_, result) in sorted(found.items())]
    finally:
        for process in processes:
            process.join(10)
            process.kill()


def _join(environment: dict[str, str], results: Any, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ.update(environment)
    rank = int(environment["RANK"])
    try:
        with joined_group("cpu") as group:
            results.put((rank, (None, work(group, *args))))
    except BaseException:
        results.put((rank, (traceback.format_exc(), None)))
        raise
