"""A decoder sees what came before and what was asked, and nothing of other texts."""

from __future__ import annotations

import torch

from model.towers.decoder import WordDecoder
from model.towers.text import TextConfig

CONFIG = TextConfig(
    vocab_size=12, width=8, layers=2, fusion_layer=1, heads=2, mlp_width=16, max_positions=8, dropout=0.0
)


def _decoder() -> WordDecoder:
    torch.manual_seed(0)
    return WordDecoder(CONFIG, layers=2)


def test_a_word_does_not_see_those_after_it() -> None:
    decoder, asked = _decoder(), torch.randn(1, 3, 8)
    ids, mask = torch.tensor([[2, 5, 6, 7]]), torch.ones(1, 4, dtype=torch.bool)
    changed = torch.tensor([[2, 5, 6, 9]])
    owner, seen = torch.tensor([0]), torch.ones(1, 3, dtype=torch.bool)
    found, other = (decoder(each, mask, asked, seen, owner) for each in (ids, changed))
    torch.testing.assert_close(found[:, :3], other[:, :3])
    assert not torch.allclose(found[:, 3], other[:, 3])


def test_each_text_reads_its_own_question_as_if_alone_and_padding_of_questions_is_not_seen() -> None:
    decoder, asked = _decoder(), torch.randn(2, 4, 8)
    asked_mask = torch.tensor([[True, True, False, False], [True] * 4])
    ids, mask = torch.randint(1, 12, (5, 3)), torch.ones(5, 3, dtype=torch.bool)
    owners = torch.tensor([1, 0, 0, 1, 1])
    together = decoder(ids, mask, asked, asked_mask, owners)
    for row, owner in enumerate(owners.tolist()):
        question = asked[owner][asked_mask[owner]][None]
        alone = decoder(
            ids[row : row + 1], mask[:1], question, torch.ones(question.shape[:2]), torch.zeros(1, dtype=torch.long)
        )
        torch.testing.assert_close(together[row], alone[0])
