"""Who this process is among the others: alone, under `torchrun`, or inside a group that Ray Train has set up."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from shards.errors import ConfigError, OstrakaError

T = TypeVar("T")


class PeerError(OstrakaError):
    """Another process of the run stopped; the message is its own sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The processes of one training run; rank 0 writes and speaks."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    talk: dist.ProcessGroup | None = None  # speaks gloo, for words between CPUs; None where the run's own group does

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Add a tensor up over all ranks, in place; every rank must call it with the same shape."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def most(self, values: Tensor) -> Tensor:
        """Take the greatest of a tensor over all ranks, in place; every rank must call it with the same shape."""
        if self.world > 1:
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values

    def gather(self, values: Tensor) -> list[Tensor]:
        """Collect the tensors of all ranks, by rank; every rank must call it with the same shape."""
        if self.world == 1:
            return [values]
        found = [torch.empty_like(values) for _ in range(self.world)]
        dist.all_gather(found, values.contiguous())
        return found

    def agree(self, number: int, what: str) -> None:
        """Check that every rank holds the same number; every rank must call it.

        Raises:
            ConfigError: they differ.
        """
        if self.world == 1:
            return
        numbers = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.world)]
        dist.all_gather(numbers, torch.tensor([number], device=self.device))
        found = [int(one) for one in numbers]
        if len(set(found)) > 1:
            raise ConfigError(f"the processes of this run disagree on the {what} (rank 0 on: {found})")

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes; every rank must call it."""
        return bool(self.sum(torch.tensor([int(flag)], device=self.device)))

    def tell(self, news: T | None) -> dict[int, T]:
        """Let every rank know what any of them has to say; every rank must call it.

        Where nobody has anything, that is one number between CPUs, so that a loop may ask once per step.

        Returns:
            The news by rank, the same on every rank.
        """
        if self.world == 1:
            return {} if news is None else {0: news}
        speakers = torch.tensor([int(news is not None)])
        dist.all_reduce(speakers, group=self.talk)
        if not int(speakers):
            return {}
        told: list[T | None] = [None] * self.world
        dist.all_gather_object(told, news, group=self.talk)
        return {rank: each for rank, each in enumerate(told) if each is not None}

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let all ranks leave the body, or none: where it fails on one, the others stop with that one's sentence.

        Every rank must enter it, and the body must not wait for other ranks.

        Raises:
            PeerError: the body failed on another rank.
        """
        try:
            yield
        except Exception as error:
            self.tell(sentence_of(error))
            raise
        self.raise_for(self.tell(None))

    def raise_for(self, failures: Mapping[int, str]) -> None:
        """Stop where a rank told of its failure.

        Raises:
            PeerError: with the sentence of the first of them.
        """
        if failures:
            rank = min(failures)
            raise PeerError(f"rank {rank} stopped the run: {failures[rank]}")

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def joined_group(device: str) -> Iterator[Group]:
    """Join the processes that the environment speaks of, and leave them afterwards if it was we who joined.

    Args:
        device: `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:1`.
    """
    if dist.is_initialized():  # Ray Train has set the group up
        rank, world = dist.get_rank(), dist.get_world_size()
        yield Group(rank=rank, world=world, device=choose_device(device, local_rank=_local_rank()), talk=_talk_group())
        return
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Group(device=choose_device(device, local_rank=0))
        return
    chosen = choose_device(device, local_rank=_local_rank())
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Group(rank=dist.get_rank(), world=dist.get_world_size(), device=chosen, talk=_talk_group())
    finally:
        dist.destroy_process_group()


def sentence_of(error: Exception) -> str:
    """What other ranks are told of an error: our sentences as they are, others with the name of their kind."""
    return str(error) if isinstance(error, OstrakaError) else f"{type(error).__name__}: {error}"


def _talk_group() -> dist.ProcessGroup | None:
    """A group whose words never wait for an accelerator."""
    if dist.get_world_size() == 1 or dist.get_backend() == "gloo":
        return None
    group: dist.ProcessGroup = dist.new_group(backend="gloo")
    return group


def choose_device(device: str, *, local_rank: int) -> torch.device:
    """Resolve `auto` and `cuda` to this process's own device.

    Raises:
        ConfigError: a CUDA device is asked for and there is none, or the name is no device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device={device!r} is no device; use auto, cpu, cuda or cuda:<number>") from error
    if device == "cpu":
        return chosen
    if chosen.type != "cuda":
        raise ConfigError(f"device={device!r} is none of auto, cpu, cuda and cuda:<number>; use one of them")
    if not torch.cuda.is_available():
        raise ConfigError(f"device={device!r}, but torch sees no CUDA device here; use device=cpu or device=auto")
    # A launcher may show each process all devices of the node, or only its own.
    return torch.device("cuda", chosen.index if chosen.index is not None else local_rank % torch.cuda.device_count())


def is_first_process() -> bool:
    """Whether this process speaks for the run, by what its launcher has set; before or after any group is joined."""
    return int(os.environ.get("RANK", "0")) == 0


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))
