from __future__ import annotations

import pytest

from concepts.lexicon import guess_classes, is_word


def nouns(caption: str) -> list[str]:
    words = caption.split()
    return [word for word, guess in zip(words, guess_classes(words), strict=True) if guess == "noun"]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A brown dog runs across the wet grass .", ["dog", "grass"]),
        ("Two smiling women are holding a yellow umbrella .", ["women", "umbrella"]),
        ("a painting of a quiet harbour", ["painting", "harbour"]),
        ("The man wants to catch a ball", ["man", "ball"]),
        ("a catch near the quickly flowing river", ["catch", "river"]),
        ("A man in black sits on a bench", ["man", "bench"]),
        ("two players , each holding a racket", ["players", "racket"]),
        ("A fish and a dish in the building", ["fish", "dish", "building"]),
        ("a small red cube left of a large blue ball", ["cube", "ball"]),
    ],
)
def test_nouns_of_a_caption_are_told_by_lists_endings_and_neighbours(caption: str, expected: list[str]) -> None:
    assert nouns(caption) == expected


def test_a_word_that_no_list_knows_is_a_noun() -> None:
    assert nouns("a zorble beside the fleep") == ["zorble", "fleep"]


def test_only_letters_make_a_word() -> None:
    assert is_word("close-up")
    assert is_word("été")
    assert not any(is_word(token) for token in ("2nd", "-", "a_b", "", "dog.", "-dog"))
