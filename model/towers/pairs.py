"""The fusion tower in which a text reads two pictures by turns (ALBEF's and ViCHA's model for NLVR2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn

from model.layers.transformer import PostNormLayer
from model.towers.text import TextConfig, initialise_text


class PairFusionTower(nn.Module):
    """Pairs of fusion layers: the first of a pair attends to a text's first picture, the second to its second.

    Both cross-attentions of a pair make keys and values with the same matrices, which are tied; queries and outputs have
    their own. Whoever shards the weights keeps the tower whole, for the ties.
    """

    def __init__(self, config: TextConfig, *, picture_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(config.layers - config.fusion_layer):
            first, second = (
                PostNormLayer(
                    config.width,
                    config.heads,
                    config.mlp_width,
                    picture_width=picture_width,
                    dropout=config.dropout,
                    norm_eps=config.norm_eps,
                )
                for _ in range(2)
            )
            assert first.cross_attention is not None
            assert second.cross_attention is not None
            second.cross_attention.key = first.cross_attention.key
            second.cross_attention.value = first.cross_attention.value
            self.layers.extend((first, second))
        self.apply(initialise_text)

    def forward(
        self,
        texts: Tensor,
        mask: Tensor,
        first: Tensor,
        second: Tensor,
        *,
        assigned: Tensor | None = None,
    ) -> Tensor:
        """Read R texts against two pictures each.

        Args:
            texts: (R, T, Dt) from the text tower.
            mask: (R, T), true at real tokens.
            first: (R, S, Dv), each text's first picture; or (I, S, Dv) where `assigned` says whose they are.
            second: (R, S', Dv) or (I, S', Dv) likewise.
            assigned: (R, 2) picture numbers of each text's first and second picture.

        Returns:
            (R, T, Dt).
        """
        one, other = (None, None) if assigned is None else assigned.unbind(1)
        for left, right in self._pairs():
            assert left.cross_attention is not None
            memory = left.cross_attention.remember(first)
            texts = left(texts, mask, memory, one)
            # Where both are drawn from the same pictures, the tied matrices need see these only once.
            texts = right(texts, mask, memory if second is first else second, other)
        return texts

    def _pairs(self) -> Iterator[tuple[PostNormLayer, PostNormLayer]]:
        layers = [cast(PostNormLayer, layer) for layer in self.layers]
        return zip(layers[::2], layers[1::2], strict=True)
