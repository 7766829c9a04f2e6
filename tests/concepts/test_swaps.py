from __future__ import annotations

import numpy as np
import pytest

from concepts.contrasts import excluded_attributes, excluded_relations
from concepts.phrases import PhraseConfig, PhraseExtractor
from concepts.swaps import KINDS, Scene, SwapKind, Usage, count_uses, make_swaps

SENTENCES = (
    "A red dog chasing a cat.",
    "A cat chasing a dog.",
    "A dog and a horse.",
    "A horse chasing a cat.",
    "A red horse.",
    "A blue dog near a ball.",
    "A red ball.",
    "A blue ball near a red dog.",
    "A man riding a horse.",
    "A man feeding a horse.",
    "An orange ball.",
)
EXTRACTOR = PhraseExtractor(PhraseConfig(tagger="rules"))


def scenes(*texts: str) -> list[Scene]:
    return [Scene(text, tagged) for text, tagged in zip(texts, EXTRACTOR.tagged(texts), strict=True)]


@pytest.fixture(scope="module")
def usage() -> Usage:
    return Usage(count_uses(scenes(*SENTENCES)), min_seen=1)


def swapped(text: str, kind: SwapKind, usage: Usage, *, also: str = "") -> set[str]:
    """All that any generator chooses."""
    (scene,) = scenes(text)
    shown = frozenset(scene.words) | frozenset(also.split())
    return {
        swap.text
        for seed in range(30)
        for swap in make_swaps(scene, usage, shown=shown, rng=np.random.default_rng(seed), kinds=(kind,))
    }


def test_an_object_gives_way_to_another_that_captions_tell_apart_from_it(usage: Usage) -> None:
    assert "A red horse chasing a cat." in swapped("A red dog chasing a cat.", "replace_object", usage)


def test_an_object_that_another_caption_of_the_picture_names_is_not_put_in(usage: Usage) -> None:
    made = swapped("A red dog chasing a cat.", "replace_object", usage, also="two horses")
    assert not any("horse" in text for text in made)


def test_an_attribute_gives_way_to_one_that_excludes_it_and_that_the_object_may_have(usage: Usage) -> None:
    assert swapped("A red dog on grass.", "replace_attribute", usage) == {"A blue dog on grass."}


def test_an_article_follows_the_word_that_is_put_in(usage: Usage) -> None:
    assert swapped("A blue ball.", "replace_attribute", usage) == {"A red ball.", "An orange ball."}


def test_a_relation_gives_way_to_one_that_excludes_it(usage: Usage) -> None:
    assert swapped("A Man  riding a horse!", "replace_relation", usage) == {"A Man  feeding a horse!"}


def test_two_objects_change_places_with_their_attributes(usage: Usage) -> None:
    assert swapped("A red dog chasing a cat.", "swap_objects", usage) == {"A cat chasing a red dog."}


def test_what_is_said_of_both_alike_is_not_turned_round(usage: Usage) -> None:
    assert swapped("A ball near a dog.", "swap_objects", usage) == set()


def test_what_no_caption_says_is_not_made(usage: Usage) -> None:
    assert swapped("A man riding a horse.", "swap_objects", usage) == set()  # no horse rides


def test_two_attributes_change_places(usage: Usage) -> None:
    assert swapped("A blue ball near a red dog.", "swap_attributes", usage) == {"A red ball near a blue dog."}


def test_what_is_seen_too_rarely_is_no_sense() -> None:
    strict = Usage(count_uses(scenes(*SENTENCES)), min_seen=3)
    (scene,) = scenes(SENTENCES[0])
    assert make_swaps(scene, strict, shown=frozenset(), rng=np.random.default_rng(0)) == []


def test_counts_of_parts_add_up_to_those_of_the_whole() -> None:
    assert count_uses(scenes(*SENTENCES[:4])) + count_uses(scenes(*SENTENCES[4:])) == count_uses(scenes(*SENTENCES))


def test_every_wrong_caption_differs_from_the_right_one_and_comes_once_per_kind(usage: Usage) -> None:
    for scene in scenes(*SENTENCES):
        made = make_swaps(scene, usage, shown=frozenset(scene.words), rng=np.random.default_rng(1))
        assert [swap.kind for swap in made] == [kind for kind in KINDS if kind in {swap.kind for swap in made}]
        assert all(swap.text != scene.text for swap in made)


def test_words_that_exclude_each_other_do_so_both_ways_and_never_their_synonyms() -> None:
    for word in ("red", "small", "old", "wooden", "short"):
        assert all(word in excluded_attributes(other) for other in excluded_attributes(word))
        assert word not in excluded_attributes(word)
    assert "tiny" not in excluded_attributes("small")
    assert "sits" in excluded_relations("stands")
    assert "sitting" not in excluded_relations("stands")
    assert excluded_attributes("unheard-of") == frozenset()
