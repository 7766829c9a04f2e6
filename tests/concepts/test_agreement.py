from __future__ import annotations

from concepts.agreement import caption_agreement


def test_own_captions_are_told_from_those_of_another_picture() -> None:
    concepts = [["dog", "tree"], ["boat", "sky"], ["cat", "sofa"], ["car", "road"]]
    nouns = [["dogs", "tree"], ["boat"], ["sofa", "cat"], ["dog"]]
    found = caption_agreement(concepts, nouns, vocabulary=["dog", "tree", "boat", "sky", "cat", "sofa", "car", "road"])
    assert found is not None
    assert (found.own, found.other, found.pictures) == ((1 + 0.5 + 1 + 0) / 4, 0.0, 4)


def test_only_the_best_concepts_count() -> None:
    nouns = [["dog"], ["cat"]]
    found = caption_agreement([["sky", "dog"], ["sky", "cat"]], nouns, vocabulary=["dog", "cat", "sky"], top=1)
    assert found is not None
    assert found.own == 0.0


def test_pictures_without_nouns_are_left_out_and_one_alone_has_no_other() -> None:
    assert caption_agreement([["dog"], ["cat"]], [["dog"], []], vocabulary=["dog", "cat"]) is None
