"""Cleaning and tokens against the published code: exact."""

from __future__ import annotations

from typing import Any

import pytest

from model.text_cleaning import clean_caption, clean_question
from model.tokenizer import load_tokenizer, pad


@pytest.mark.golden("vicha/text_cleaning")
def test_captions_and_questions_are_cleaned_as_published(case: Any) -> None:
    expected = case.json("expected.json")
    for row in expected["pre_caption"]:
        assert clean_caption(row["input"], max_words=row["max_words"]) == row["output"]
    for row in expected["pre_question"]:
        assert clean_question(row["input"], max_words=row["max_ques_words"]) == row["output"]


@pytest.mark.golden("vicha/tokenizer")
def test_token_ids_are_the_published_ones(case: Any) -> None:
    tokenizer, expected = load_tokenizer(case.path / "vocab.txt"), case.json("expected.json")
    for row in expected["rows"]:
        longest = row["max_length"] if row["truncation"] else None
        assert tokenizer.encode(row["text"], max_tokens=longest) == row["input_ids"], row["text"]
    pair = expected["pair"]
    assert tokenizer.encode_pair(pair["a"], pair["b"]) == pair["input_ids"]


@pytest.mark.golden("vicha/tokenizer")
def test_a_batch_is_padded_as_published(case: Any) -> None:
    tokenizer, batch = load_tokenizer(case.path), case.json("expected.json")["batch"]
    ids, mask = pad(tokenizer.encode_batch(batch["texts"]), pad_id=tokenizer.pad_id)
    assert ids.tolist() == batch["input_ids"]
    assert mask.int().tolist() == batch["attention_mask"]
