"""Who this process is among the others."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import torch
from torch import multiprocessing

from shards.errors import ConfigError
from trainers.distributed import Group, choose_device, joined_group


def test_alone_a_process_is_the_main_one_and_sums_nothing() -> None:
    with joined_group("cpu") as group:
        assert group == Group(rank=0, world=1, device=torch.device("cpu"))
        assert group.is_main
        assert group.sum(torch.tensor([3])).item() == 3
        assert not group.any(False)
        group.agree(7, "anything")


def test_a_device_that_is_none_is_refused_in_a_sentence() -> None:
    for unknown in ("mps", "cpu:3"):
        with pytest.raises(ConfigError, match=f"device='{unknown}' is none of auto, cpu"):
            choose_device(unknown, local_rank=0)
    with pytest.raises(ConfigError, match="device='gpu' is no device; use auto"):
        choose_device("gpu", local_rank=0)


def test_cuda_without_cuda_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="sees no CUDA device"):
        choose_device("cuda:0", local_rank=0)
    assert choose_device("auto", local_rank=0) == torch.device("cpu")


def _join(rank: int, port: int, results: Any) -> None:
    import os

    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    with joined_group("cpu") as group:
        total = group.sum(torch.tensor([group.rank + 1.0])).item()
        any_flag = group.any(group.rank == 1)
        try:
            group.agree(group.rank, "shoe size")
            refused = ""
        except ConfigError as error:
            refused = str(error)
        results.put((group.rank, total, any_flag, refused))


def test_two_processes_sum_ask_one_another_and_notice_that_they_disagree() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_join, args=(rank, port, results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = sorted(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    assert [(rank, total, flag) for rank, total, flag, _ in found] == [(0, 3.0, True), (1, 3.0, True)]
    assert all("disagree on the shoe size" in refused for *_, refused in found)
