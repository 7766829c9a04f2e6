"""The queues of momentum features that serve as further negatives, and the gathering of features from all processes."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.functional import normalize

EMPTY = -100  # identity of a queue column that holds no picture yet


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the rows of all processes in rank order, without gradient; the rows themselves on one process."""
    rows = rows.detach()
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def gather_rows_with_gradient(rows: Tensor) -> Tensor:
    """Concatenate the rows of all processes in rank order; a process's own rows learn from what any process makes of them.

    Gradients add up over processes, so that their mean, as data-parallel training takes it, is that of one process which
    holds the whole batch.
    """
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return rows
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(rows.contiguous()))  # type: ignore[no-untyped-call]


def process_rank() -> int:
    """Rank of this process, 0 where there is only one."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def all_columns(columns: Tensor) -> Tensor:
    """The columns of a queue that is spread over processes, gathered; of any other queue its own."""
    return columns.full_tensor() if isinstance(columns, DTensor) else columns


class FeatureQueue(nn.Module):
    """The last Q momentum features of pictures and texts, as columns, and where the next ones go.

    Everything lies in buffers, so that a checkpoint holds it and a resumed run continues bit for bit. Nothing here
    reads a value back from the device. Whoever compares with the columns takes `all_columns` of them.
    """

    images: Tensor  # (D, Q) unit columns
    texts: Tensor  # (D, Q) unit columns
    pointer: Tensor  # (1,) next column to be written
    identities: Tensor  # (1, Q) which picture a column shows; only with `with_identities`

    def __init__(self, width: int, size: int, *, with_identities: bool = False) -> None:
        super().__init__()
        self.size = size
        self.with_identities = with_identities
        self.register_buffer("images", normalize(torch.randn(width, size), dim=0))
        self.register_buffer("texts", normalize(torch.randn(width, size), dim=0))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))
        if with_identities:
            self.register_buffer("identities", torch.full((1, size), EMPTY, dtype=torch.long))

    @torch.no_grad()
    def shard(self, mesh: DeviceMesh) -> None:
        """Keep only this process's share of the columns: the buffers become DTensors over a mesh of one dimension."""
        for name in ("images", "texts", *(("identities",) if self.with_identities else ())):
            # Every process holds the same columns, so each takes its own and nothing is sent.
            self.register_buffer(name, distribute_tensor(self.get_buffer(name), mesh, [Shard(1)], src_data_rank=None))

    @torch.no_grad()
    def push(self, images: Tensor, texts: Tensor, identity: Tensor) -> None:
        """Overwrite the oldest columns with the features of all processes, in rank order.

        Args:
            images: (B, D) unit rows of this process.
            texts: (B, D) unit rows of this process.
            identity: (B,) which picture each row shows; negative where a pair is its own.
        """
        if self.size == 0:
            return
        # More new rows than columns: only the last ones would survive anyway.
        images, texts = gather_rows(images), gather_rows(texts)
        count = len(images)
        images, texts = images[-self.size :], texts[-self.size :]
        skipped = count - len(images)
        first = self.pointer + skipped
        _overwrite(self.images, images.t(), first)
        _overwrite(self.texts, texts.t(), first)
        if self.with_identities:
            known = gather_rows(identity)[-self.size :]
            _overwrite(self.identities, known.masked_fill(known < 0, EMPTY)[None], first)
        self.pointer.add_(count).remainder_(self.size)


def _overwrite(queue: Tensor, columns: Tensor, first: Tensor) -> None:
    """Write (D, n) columns into a (D, Q) queue from column `first` (1,) on, going round at its end."""
    size, count = queue.shape[1], columns.shape[1]
    columns = columns.to(queue.dtype)
    if not isinstance(queue, DTensor):
        queue.index_copy_(1, (first + torch.arange(count, device=first.device)) % size, columns)
        return
    # Which columns are this process's is known, how many of the new ones fall among them is not: each of its columns
    # looks up whether a new one has come for it, so that nothing waits for the device.
    own = queue.to_local()
    mesh = queue.device_mesh
    share = -(-size // mesh.size())  # as torch cuts: the last processes may have fewer, or none
    places = mesh.get_local_rank() * share + torch.arange(own.shape[1], device=own.device)
    age = (places - first) % size
    own.copy_(torch.where(age < count, columns[:, age.clamp(max=count - 1)], own))
