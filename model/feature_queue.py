"""The queues of momentum features that serve as further negatives, and the gathering of features from all processes."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
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


def process_rank() -> int:
    """Rank of this process, 0 where there is only one."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


class FeatureQueue(nn.Module):
    """The last Q momentum features of pictures and texts, as columns, and where the next ones go.

    Everything lies in buffers, so that a checkpoint holds it and a resumed run continues bit for bit. Nothing here
    reads a value back from the device.
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
        columns = (self.pointer + skipped + torch.arange(len(images), device=self.pointer.device)) % self.size
        self.images.index_copy_(1, columns, images.t().to(self.images.dtype))
        self.texts.index_copy_(1, columns, texts.t().to(self.texts.dtype))
        if self.with_identities:
            known = gather_rows(identity)[-self.size :]
            self.identities.index_copy_(1, columns, known.masked_fill(known < 0, EMPTY)[None])
        self.pointer.add_(count).remainder_(self.size)
