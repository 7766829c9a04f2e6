from __future__ import annotations

import pytest

from concepts.lexicon import guess_classes
from concepts.patterns import PhraseKind, find_phrases


def found(caption: str, kind: PhraseKind) -> list[str]:
    words = caption.lower().split()
    return find_phrases(words, guess_classes(words), (kind,))


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("A small red fire truck near the old house .", ["small truck", "red truck", "old house"]),
        ("a black and white cat", ["black cat", "white cat"]),
        ("a tall , dark tree", ["tall tree", "dark tree"]),
        ("the sky is blue and dogs run", []),
        ("a dog on a couch", []),
    ],
)
def test_an_attribute_stands_directly_before_the_nouns_it_describes(caption: str, phrases: list[str]) -> None:
    assert found(caption, "attribute") == phrases


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("A man riding a brown horse on the beach .", ["man riding horse", "horse on beach"]),
        ("The dog is sitting next to a small chair", ["dog sitting next to chair"]),
        ("A kite that was being pulled over the water", ["kite pulled over water"]),
        ("a cup of coffee", []),
        ("a dog and a cat", []),
        ("a dog , a cat", []),
    ],
)
def test_a_relation_joins_neighbouring_things_by_what_is_said_between_them(caption: str, phrases: list[str]) -> None:
    assert found(caption, "relation") == phrases


def test_several_kinds_come_one_after_the_other() -> None:
    words = ["a", "red", "car", "near", "a", "tree"]
    phrases = find_phrases(words, guess_classes(words), ("noun", "attribute", "relation"))
    assert phrases == ["car", "tree", "red car", "car near tree"]
