"""Token states between embedding and matching, in bounded memory however large the gallery is.

Of COCO's 5,000 test pictures at 384 pixels the states alone are 8.9 GB, of its 25,000 captions 1.9 GB with their padding. So:

- Whole batches are kept as long as there is room, and the others are computed again when they are matched: the same batch
  gives the same bits. That costs a second pass of the picture tower over those that found no room, at most 6 % of the FLOPs
  of re-ranking COCO by 256 candidates, and neither disk nor anything to clean up. Where few pictures are candidates, only
  their batches are computed.
- Texts are read by every picture, in another company each time, so they stay: without padding, and only those that are
  anybody's candidate; COCO's take 0.9 GB. They have the first claim on the room. Where they outgrow it they lie in a file
  without a name, which vanishes with the process however that ends, in the order in which every picture reads them, the short
  ones first. An accelerator then has them brought from the host for every pass.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from shards.errors import OstrakaError

Side: TypeAlias = Literal["images", "texts"]


class KeptStates:
    """The states of whole batches, as many as there is room for, each to be taken once."""

    def __init__(self, room: int) -> None:
        """Args:
        room: bytes that all of them may take.
        """
        self._left = room
        self._kept: dict[tuple[Side, int], Tensor] = {}

    def keep(self, side: Side, batch: range, states: Tensor) -> None:
        """Keep the states of a batch, if there is room."""
        if states.nbytes <= self._left:
            self._kept[side, batch.start] = states
            self._left -= states.nbytes

    def take(self, side: Side, batch: range) -> Tensor | None:
        """Give the states of a batch away; `None` where they were not kept."""
        states = self._kept.pop((side, batch.start), None)
        self._left += 0 if states is None else states.nbytes
        return states

    def make_room(self, wanted: int) -> None:
        """Set `wanted` bytes of the room aside, and give up what came last where they are taken."""
        self._left -= wanted
        while self._kept and self._left < 0:
            _, states = self._kept.popitem()
            self._left += states.nbytes


class PackedTexts:
    """The states of some texts of a gallery, token by token without padding, shortest text first."""

    def __init__(self, lengths: Tensor, chosen: Tensor, rows: Tensor) -> None:
        """Args:
        lengths: (texts,) tokens of every text of the gallery.
        chosen: (texts,) bool, those that have a place.
        rows: (tokens, Dt) places for all tokens of the chosen texts, on any device.
        """
        self.lengths = lengths
        own = torch.where(chosen, lengths, 0).to(rows.device)
        order = own.argsort(stable=True)
        self._starts = torch.empty_like(own)
        self._starts[order] = own[order].cumsum(0) - own[order]
        self._own = own
        self._rows = rows

    def put(self, texts: range, states: Tensor) -> None:
        """Take the states (n, T, Dt) of some texts, of which those without a place are passed over."""
        steps = torch.arange(states.shape[1], device=self._rows.device)
        own = slice(texts.start, texts.stop)
        places = self._starts[own, None] + steps  # (n, T)
        real = steps < self._own[own, None]
        self._rows[places[real]] = states.to(self._rows.device)[real]

    def padded(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Give the states of R chosen texts, padded to the longest of them by repeating last tokens.

        Returns:
            (R, T, Dt) states and (R, T) bool, true at tokens, where the lengths are.
        """
        own = texts.to(self._rows.device)
        steps = torch.arange(int(self._own[own].max()), device=self._rows.device)
        lengths = self._own[own, None]  # (R, 1)
        states = self._rows[self._starts[own, None] + torch.minimum(steps, lengths - 1)]
        device = self.lengths.device
        return states.to(device), (steps < lengths).to(device)


def rows_in_file(count: int, like: Tensor, *, folder: Path) -> Tensor:
    """Make (count, D) rows, D and kind of number as of `like`, that lie in a nameless file and not in memory.

    Raises:
        OstrakaError: the folder cannot hold them.
    """
    width = like.shape[-1]
    size = count * width * like.element_size()
    try:
        folder.mkdir(parents=True, exist_ok=True)  # of several nodes each has its own disk, perhaps
        with tempfile.TemporaryFile(dir=folder) as file:
            # Reserved now, since writing to a mapping of a full disk kills the process.
            os.posix_fallocate(file.fileno(), 0, size)
            mapped = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise OstrakaError(
            f"{folder}: cannot hold {size / 2**20:,.0f} MiB of text states ({error.strerror or error}); free some room, name "
            "another folder, or let them stay in memory by state_bytes=…"
        ) from error
    return torch.frombuffer(mapped, dtype=like.dtype, count=count * width).view(count, width)
