"""Cleaning: what must hold for any text. The published outputs are held by the golden case."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model.text_cleaning import clean_caption, clean_question


@given(st.text(max_size=80))
def test_cleaning_a_clean_caption_changes_nothing(text: str) -> None:
    once = clean_caption(text)
    assert clean_caption(once) == once or "\n" in once or "<person>" in once


@given(st.text(max_size=80), st.integers(1, 6))
def test_no_more_words_than_asked_for_are_kept(text: str, words: int) -> None:
    assert len(clean_caption(text, max_words=words).split(" ")) <= words
    assert len(clean_question(text, max_words=words).split(" ")) <= words


def test_questions_keep_double_spaces_and_captions_do_not() -> None:
    assert clean_question("Is  it?") == "is  it"
    assert clean_caption("Is  it?") == "is it"
