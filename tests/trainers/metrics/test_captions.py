"""What caption metrics hold in general: perfect, empty and repeated captions, and the words they are cut into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.metrics.caption_tokens import caption_tokens
from trainers.metrics.captions import bleu, cider, rouge_l

words = st.lists(
    st.sampled_from(["a", "dog", "cat", "sits", "on", "the", "red", "mat", "and"]), min_size=4, max_size=12
)
OTHER = ["two", "people", "walk", "along", "an", "empty", "beach"]


@given(caption=words)
def test_a_caption_that_someone_gave_scores_in_full(caption: list[str]) -> None:
    assert bleu([caption], [[OTHER, caption]])[4].corpus == pytest.approx(1, abs=1e-6)
    assert rouge_l([caption], [[OTHER, caption]]).corpus == pytest.approx(1)


@given(caption=words, reference=words)
def test_scores_stay_within_their_scales(caption: list[str], reference: list[str]) -> None:
    candidates, references = [caption, OTHER], [[reference], [OTHER]]
    assert all(0 <= scored.corpus <= 1 + 1e-9 for scored in bleu(candidates, references).values())
    assert 0 <= rouge_l(candidates, references).corpus <= 1
    assert 0 <= cider(candidates, references).corpus <= 10 + 1e-9


def test_repeating_a_right_word_earns_nothing_more() -> None:
    reference = ["a", "dog", "on", "the", "red", "mat"]
    once, often = bleu([["dog"] * 6], [[reference]])[1], bleu([["dog"] + ["x"] * 5], [[reference]])[1]
    assert once.corpus == pytest.approx(often.corpus)
    candidates, references = [["dog"] * 6, OTHER], [[reference], [OTHER]]
    plain = cider([["dog"] + ["x"] * 5, OTHER], references).each[0]
    assert cider(candidates, references).each[0] <= plain < cider(candidates, references, variant="original").each[0]


def test_an_empty_caption_scores_nothing() -> None:
    references = [["a", "dog"]]
    assert rouge_l([[]], [references]).corpus == 0
    assert cider([[], OTHER], [references, [OTHER]]).each[0] == 0
    assert bleu([[]], [references])[1].corpus == pytest.approx(0)


def test_the_order_of_pictures_does_not_matter() -> None:
    candidates, references = [["a", "red", "mat"], OTHER], [[["the", "red", "mat"]], [["people", "walk"], OTHER]]
    forth, back = cider(candidates, references), cider(candidates[::-1], references[::-1])
    assert forth.corpus == pytest.approx(back.corpus)
    assert forth.each == pytest.approx(back.each[::-1])


def test_pictures_without_captions_or_references_are_refused() -> None:
    with pytest.raises(ValueError, match="1 captions against references of 2 pictures"):
        bleu([OTHER], [[OTHER], [OTHER]])
    with pytest.raises(ValueError, match="picture 1 has no reference"):
        cider([OTHER, OTHER], [[OTHER], []])


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("A man's dog can't sit.", "a man 's dog ca n't sit"),
        ("At 10:30 a.m. it costs $3.50!", "at 10:30 a.m. it costs $ 3.50"),
        ("half-empty mug & (red) cup", "half-empty mug & -lrb- red -rrb- cup"),
        ("we cannot stop; they’re “here” …", "we can not stop they 're here"),
        ("- . ,", ""),
    ],
)
def test_a_caption_is_cut_as_the_evaluation_cuts_it(text: str, cut: str) -> None:
    assert caption_tokens(text) == cut.split()
