"""Ruling out concepts on a GPU: the product and the comparison happen there, and only what may be among the best comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from concepts.shortlist import Floats, Places

if TYPE_CHECKING:
    import torch


class GpuScreen:
    """The `Screen` of torch. Products are taken in full float32: TF32 would err by more than the margin allows.

    A block is copied to the device once for all queries, and queries once for all blocks, as long as `held` sets of them fit.
    """

    def __init__(self, device: str = "cuda", *, held: int = 128) -> None:
        """Args:
        device: where to multiply.
        held: sets of queries that stay on the device; with 256 queries of 512 dimensions each takes half a MiB.
        """
        self._device = device
        self._held = held
        self._placed: dict[int, tuple[Floats, torch.Tensor]] = {}
        self._block: tuple[Floats, torch.Tensor] | None = None

    def __call__(self, queries: Floats, block: Floats, floors: Floats, k: int, slack: float) -> tuple[Places, Floats]:
        import torch

        with torch.inference_mode():
            cosines = _full_precision_product(self._queries(queries), self._items(block))  # (R, C)
            if np.isneginf(floors).all() and k < len(block):
                bars = cosines.topk(k, dim=1).values[:, -1] - slack
            else:
                bars = torch.from_numpy(floors).to(self._device)
            hits = torch.nonzero((cosines >= bars[:, None]).reshape(-1)).reshape(-1)
            return hits.cpu().numpy(), cosines.reshape(-1)[hits].cpu().numpy()

    def _items(self, block: Floats) -> torch.Tensor:
        import torch

        # Compared by identity, and kept, so that no other array can come to live at the same address.
        if self._block is None or self._block[0] is not block:
            self._block = (block, torch.from_numpy(block).to(self._device))
        return self._block[1]

    def _queries(self, queries: Floats) -> torch.Tensor:
        import torch

        found = self._placed.get(id(queries))
        if found is None:
            if len(self._placed) >= self._held:
                self._placed.clear()
            found = self._placed[id(queries)] = (queries, torch.from_numpy(queries).to(self._device))
        return found[1]


def _full_precision_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    import torch

    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        return left @ right.T
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
