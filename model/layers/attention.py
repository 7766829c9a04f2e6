"""Multi-head attention: over one sequence, and from a text sequence to a picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


def key_mask(mask: Tensor | None) -> Tensor | None:
    """Turn a (B, S) mask of real positions, or a (B, T, S) one of each query's own, into one that broadcasts over heads."""
    if mask is None:
        return None
    return mask.bool()[:, None] if mask.ndim == 3 else mask.bool()[:, None, None, :]


def causal_mask(mask: Tensor) -> Tensor:
    """Let every real token see itself and the real ones before it: (B, T) to (B, T, T), true where T attends to T."""
    length = mask.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    return before & mask.bool()[:, None, :]


def check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"a width of {width} does not divide into {heads} heads; choose a divisor of the width")


@dataclass(frozen=True, slots=True)
class PictureMemory:
    """The keys and values of I pictures under one pair of matrices, for whoever shares these."""

    key: Tensor  # (I, N, S, D / N)
    value: Tensor  # (I, N, S, D / N)

    def __len__(self) -> int:
        return len(self.key)


class FusedAttention(nn.Module):
    """Self-attention with one matrix for queries, keys and values, as vision transformers are published."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """Let every position of (B, S, D) attend to every other."""
        batch, length, width = states.shape
        # Chunks of the last dimension: their gradients are joined by one copy, those of a permuted view by two.
        query, key, value = (part.view(batch, length, self.heads, -1) for part in self.qkv(states).chunk(3, dim=2))
        mixed = scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))  # type: ignore[no-any-return]


class SplitAttention(nn.Module):
    """Attention with separate matrices, as BERT is published; over the text itself or over a picture."""

    def __init__(self, width: int, heads: int, *, context_width: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width or width, width)
        self.value = nn.Linear(context_width or width, width)
        self.out = nn.Linear(width, width)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let every token attend to the real tokens of its own text.

        Args:
            states: (B, T, D).
            mask: (B, T), true or 1 at real tokens; or (B, T, T), each token's own, such as a causal one.

        Returns:
            (B, T, D).
        """
        mixed = self._attend(
            self._heads(self.query(states)),
            self._heads(self.key(states)),
            self._heads(self.value(states)),
            key_mask(mask),
        )
        return self.out(self._join(mixed))  # type: ignore[no-any-return]

    def remember(self, pictures: Tensor) -> PictureMemory:
        """Compute keys and values of (I, S, Dv) pictures."""
        return PictureMemory(self._heads(self.key(pictures)), self._heads(self.value(pictures)))

    def over_pictures(
        self,
        states: Tensor,
        pictures: Tensor | PictureMemory,
        strays: Tensor | None = None,
        *,
        picture_mask: Tensor | None = None,
    ) -> Tensor:
        """Let texts attend to I pictures whose keys and values are computed once each, however many texts read them.

        A "picture" is whatever is read across: of a decoder the question's states, of masked pictures the caption's.

        Args:
            states: (I * G + M, T, D): G texts for the first picture, G for the next, and so on; after them M further
                texts for the pictures named by `strays`.
            pictures: (I, S, Dv), or what an attention that shares its matrices with this one remembers of them.
            strays: (M,) picture numbers; `None` where M is 0.
            picture_mask: (I, S), true or 1 at what may be seen; `None` shows all.

        Returns:
            (I * G + M, T, D).
        """
        memory = pictures if isinstance(pictures, PictureMemory) else self.remember(pictures)
        key, value = memory.key, memory.value
        query, mask = self.query(states), key_mask(picture_mask)
        whole = len(states) - (0 if strays is None else len(strays))
        parts = []
        if whole:
            # The texts of one picture are one longer query, a mere view: no copy of keys and values per text.
            grouped = query[:whole].view(len(pictures), -1, query.shape[2])
            mixed = self._join(self._attend(self._heads(grouped), key, value, mask))
            parts.append(mixed.view(whole, *query.shape[1:]))
        if strays is not None:
            own = None if mask is None else mask[strays]
            parts.append(self._join(self._attend(self._heads(query[whole:]), key[strays], value[strays], own)))
        return self.out(torch.cat(parts) if len(parts) > 1 else parts[0])  # type: ignore[no-any-return]

    def _heads(self, states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], self.heads, -1).transpose(1, 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)

    def _join(self, mixed: Tensor) -> Tensor:
        return mixed.transpose(1, 2).flatten(2)
