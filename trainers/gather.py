"""Rows that ranks have computed by shares, put together again: padding is flagged and dropped, the order restored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from trainers.distributed import Group

T = TypeVar("T")

_PADDING = -1  # the place of a row that only fills a rank's part up


def shares(group: Group, *, total: int, size: int) -> tuple[range, ...]:
    """Deal `range(total)`, cut into chunks of `size`, to the ranks by turns; give this rank's chunks, maybe none.

    The chunks are those that one process would go through, so that whatever depends on a chunk's company (padding, the order
    of sums) is the same for any number of ranks, to the last bit.
    """
    starts = range(0, total, size)[group.rank :: group.world]
    return tuple(range(start, min(start + size, total)) for start in starts)


def gather_rows(group: Group, parts: Sequence[Tensor], places: Sequence[int] | Tensor, *, total: int) -> Tensor:
    """Put the rows of all ranks in order; every rank must call it, also one that has none.

    Args:
        group: the ranks.
        parts: this rank's rows in pieces, each (n, …); together as many as `places`.
        places: where each row belongs in `range(total)`.
        total: rows of all ranks together.

    Returns:
        (total, …) on every rank, bit for bit what the ranks computed.

    Raises:
        ValueError: a place was filled twice or not at all.
    """
    shape = group.tell((tuple(parts[0].shape[1:]), parts[0].dtype) if parts else None)
    if not shape:
        raise ValueError(f"no rank has any of {total} rows")
    tail, dtype = shape[min(shape)]
    rows = torch.cat(list(parts)) if parts else torch.empty(0, *tail, dtype=dtype, device=group.device)
    own = torch.as_tensor(places, dtype=torch.int64, device=rows.device)
    if group.world > 1:
        longest = int(group.most(torch.tensor([len(rows)], device=group.device)))
        own = torch.cat(group.gather(_filled(own, longest, _PADDING)))
        # As bytes: not every backend moves every kind of number.
        octets = _filled(rows, longest, 0).contiguous().view(longest, -1).view(torch.uint8)
        rows = torch.cat(group.gather(octets)).view(dtype).view(-1, *tail)
        rows, own = rows[own != _PADDING], own[own != _PADDING]
    if not torch.equal(own.sort().values, torch.arange(total, device=own.device)):
        raise ValueError(f"the ranks' rows do not fill {total} places once each")
    return rows[own.argsort()]


def gather_items(group: Group, items: Sequence[T], places: Sequence[int], *, total: int) -> list[T]:
    """Put the objects of all ranks in order; every rank must call it, also one that has none.

    Args:
        group: the ranks.
        items: this rank's; they are pickled on their way.
        places: where each belongs in `range(total)`.
        total: objects of all ranks together.

    Raises:
        ValueError: a place was filled twice or not at all.
    """
    told = group.tell(list(zip(places, items, strict=True)))
    found = {place: item for part in told.values() for place, item in part}
    if sum(map(len, told.values())) != total or found.keys() != set(range(total)):
        raise ValueError(f"the ranks' items do not fill {total} places once each")
    return [found[place] for place in range(total)]


def _filled(rows: Tensor, length: int, value: int) -> Tensor:
    """The rows, and below them as many of `value` as make them `length`."""
    return torch.cat([rows, rows.new_full((length - len(rows), *rows.shape[1:]), value)])
