"""Rows computed by shares come together in order, whatever the number of ranks, and where one rank fails none waits."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
import torch
from torch import Tensor, multiprocessing

from shards.errors import ConfigError
from trainers.distributed import Group, PeerError, joined_group
from trainers.gather import gather_items, gather_rows, shares

WORLD = 3
SIZES = [
    (1, 4),
    (4, 4),
    (8, 4),
    (9, 4),
    (31, 4),
    (12, 1),
]  # rows in all, rows of a chunk: from one chunk for all ranks on


def made(chosen: range, dtype: torch.dtype) -> Tensor:
    """Rows (n, 2, 3) that tell where they belong."""
    rows = torch.arange(6).reshape(2, 3) + 7 * torch.tensor(list(chosen))[:, None, None]
    return (rows % 2 == 0) if dtype == torch.bool else (rows / 3).to(dtype)


def gathered(group: Group, total: int, size: int, dtype: torch.dtype) -> Tensor:
    own = shares(group, total=total, size=size)
    return gather_rows(
        group, [made(share, dtype) for share in own], [place for share in own for place in share], total=total
    )


def _rank(rank: int, port: int, results: Any) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(WORLD), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    torch.set_num_threads(1)
    with joined_group("cpu") as group:
        whole = all(
            torch.equal(gathered(group, total, size, dtype), made(range(total), dtype))
            for total, size in SIZES
            for dtype in (torch.float32, torch.bfloat16, torch.bool, torch.int64)
        )
        for total, size in SIZES:
            places = [place for share in shares(group, total=total, size=size) for place in share]
            items = gather_items(group, [f"item {place}" for place in places], places, total=total)
            whole = whole and items == [f"item {place}" for place in range(total)]
        spoken: str | None = f"from {rank}" if rank != 1 else None
        nothing: str | None = None
        news = group.tell(spoken), group.tell(nothing)
        said = []
        for failing in (ConfigError("rank 2 has no disk"), ZeroDivisionError("by nothing")):
            try:
                with group.together():
                    if rank == 2:
                        raise failing
            except (PeerError, ConfigError, ZeroDivisionError) as error:
                said.append(f"{type(error).__name__}: {error}")
        with group.together():
            pass
        try:  # two ranks claim the same place
            gather_rows(group, [torch.ones(1, 2)], [min(rank, 1)], total=WORLD)
            refused = ""
        except ValueError as error:
            refused = str(error)
        results.put((rank, whole, news, said, refused))


def test_three_ranks_gather_what_one_would_make_tell_one_another_news_and_stop_together() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_rank, args=(rank, port, results)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    found = sorted(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    assert [rank for rank, *_ in found] == list(range(WORLD))
    for rank, whole, news, said, refused in found:
        assert whole
        assert news == ({0: "from 0", 2: "from 2"}, {})
        if rank == 2:
            assert said == ["ConfigError: rank 2 has no disk", "ZeroDivisionError: by nothing"]
        else:
            assert said == [
                "PeerError: rank 2 stopped the run: rank 2 has no disk",
                "PeerError: rank 2 stopped the run: ZeroDivisionError: by nothing",
            ]
        assert "once each" in refused


@pytest.mark.parametrize(("total", "size"), SIZES)
@pytest.mark.parametrize("world", [1, 2, 5])
def test_the_chunks_dealt_to_ranks_are_those_of_one_process(total: int, size: int, world: int) -> None:
    alone = shares(Group(), total=total, size=size)
    assert [place for share in alone for place in share] == list(range(total))
    dealt = [share for rank in range(world) for share in shares(Group(rank=rank, world=world), total=total, size=size)]
    assert sorted(dealt, key=lambda share: share.start) == list(alone)


@pytest.mark.parametrize("places", [[0, 1, 1], [0, 2, 3], [0, 1]])
def test_rows_that_do_not_fill_the_whole_are_a_fault_of_the_code(places: list[int]) -> None:
    with pytest.raises(ValueError, match="once each"):
        gather_rows(Group(), [torch.ones(len(places), 2)], places, total=3)
    with pytest.raises(ValueError, match="no rank has any"):
        gather_rows(Group(), [], [], total=3)
