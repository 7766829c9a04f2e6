"""A decoder of words: each word attends to those before it and to the states of what was asked."""

from __future__ import annotations

from torch import Tensor, nn

from model.layers.attention import causal_mask
from model.layers.transformer import PostNormLayer
from model.towers.text import TextConfig, TextEmbedding, WordHead, initialise_text


class WordDecoder(nn.Module):
    """BERT's post-norm layers with a causal mask, cross-attention in each, and the tied head that predicts words."""

    def __init__(self, config: TextConfig, *, layers: int) -> None:
        super().__init__()
        self.embedding = TextEmbedding(config)
        self.layers = nn.ModuleList(
            PostNormLayer(
                config.width,
                config.heads,
                config.mlp_width,
                picture_width=config.width,
                dropout=config.dropout,
                norm_eps=config.norm_eps,
            )
            for _ in range(layers)
        )
        self.apply(initialise_text)
        self.words = WordHead(config)

    def forward(self, ids: Tensor, mask: Tensor, asked: Tensor, asked_mask: Tensor, owners: Tensor) -> Tensor:
        """Run over A texts about B questions, whose keys and values are computed once however many texts they have.

        Args:
            ids: (A, T) with the class token first.
            mask: (A, T), true at real tokens.
            asked: (B, Tq, Dt) states of the questions.
            asked_mask: (B, Tq), true at real tokens.
            owners: (A,) which question each text is about.

        Returns:
            (A, T, Dt); state t predicts token t + 1.
        """
        states, causal = self.embedding(ids), causal_mask(mask)
        for layer in self.layers:
            states = layer(states, causal, asked, owners, picture_mask=asked_mask)
        return states  # type: ignore[no-any-return]

    def logits(self, states: Tensor) -> Tensor:
        """(…, Dt) states to (…, V) logits of the next word."""
        return self.words(states, self.embedding.words.weight)  # type: ignore[no-any-return]
