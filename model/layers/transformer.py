"""The two layers everything is built of: the pre-norm layer of vision transformers and the post-norm layer of BERT."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import gelu

from model.layers.attention import FusedAttention, PictureMemory, SplitAttention
from model.layers.layer import Layer


class FeedForward(nn.Module):
    """Widen, exact GELU, narrow."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, states: Tensor) -> Tensor:
        return self.down(gelu(self.up(states)))  # type: ignore[no-any-return]


class PreNormLayer(Layer):
    """Normalise, then attend or feed forward, then add: the vision transformer's block."""

    def __init__(self, width: int, heads: int, inner: int, *, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=norm_eps)
        self.attention = FusedAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = FeedForward(width, inner)

    def run(self, states: Tensor) -> Tensor:
        """(B, S, D) to (B, S, D)."""
        states = states + self.attention(self.attention_norm(states))
        return states + self.mlp(self.mlp_norm(states))  # type: ignore[no-any-return]


class PostNormLayer(Layer):
    """Attend, add, normalise; then, where the layer reads pictures, the same over a picture; then feed forward."""

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        *,
        picture_width: int | None = None,
        dropout: float = 0.0,
        norm_eps: float = 1e-12,
    ) -> None:
        super().__init__()
        self.attention = SplitAttention(width, heads, dropout=dropout)
        self.attention_norm = nn.LayerNorm(width, eps=norm_eps)
        self.cross_attention: SplitAttention | None = None
        self.cross_norm: nn.LayerNorm | None = None
        if picture_width is not None:
            self.cross_attention = SplitAttention(width, heads, context_width=picture_width, dropout=dropout)
            self.cross_norm = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = FeedForward(width, inner)
        self.mlp_norm = nn.LayerNorm(width, eps=norm_eps)
        self.dropout = nn.Dropout(dropout)

    def run(
        self,
        states: Tensor,
        mask: Tensor | None = None,
        pictures: Tensor | PictureMemory | None = None,
        strays: Tensor | None = None,
        *,
        picture_mask: Tensor | None = None,
    ) -> Tensor:
        """Run the layer.

        Args:
            states: (R, T, D) texts.
            mask: (R, T), true or 1 at real tokens; or (R, T, T), each token's own.
            pictures: (I, S, Dv); needed by a layer with cross-attention, refused by one without.
            strays: see `SplitAttention.over_pictures`.
            picture_mask: (I, S), true or 1 at what may be seen; `None` shows all.

        Returns:
            (R, T, D).
        """
        states = self.attention_norm(states + self.dropout(self.attention(states, mask)))
        if self.cross_attention is not None and self.cross_norm is not None:
            assert pictures is not None
            seen = self.cross_attention.over_pictures(states, pictures, strays, picture_mask=picture_mask)
            states = self.cross_norm(states + self.dropout(seen))
        return self.mlp_norm(states + self.dropout(self.mlp(states)))  # type: ignore[no-any-return]
