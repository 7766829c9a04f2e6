"""Wrong captions on a card: what was exchanged is marked, and nothing of a caption is obeyed."""

from __future__ import annotations

from jobs.report.learned import HardCaption, Learned, SwappedCaption
from jobs.report.wrong_captions import MOST_WRONG, marked_exchange, wrong_captions
from shards.records import Caption


def test_the_words_that_went_are_struck_out_beside_those_that_came() -> None:
    assert (
        marked_exchange("A red dog on grass.", "A blue dog on grass.")
        == "A <del>red</del> <ins>blue</ins> dog on grass."
    )
    assert (
        marked_exchange("An old man", "A young man") == "<del>An</del> <ins>A</ins> <del>old</del> <ins>young</ins> man"
    )
    assert marked_exchange("a <b>", "a <i>") == "a &lt;<del>b</del> <ins>i</ins>&gt;"
    assert marked_exchange("same", "same") == "same"


def test_a_few_of_each_sort_are_shown_and_it_is_said_of_how_many() -> None:
    hard = tuple(HardCaption(text=f"<{n}>", score=0.5 - n / 100, source="other") for n in range(MOST_WRONG + 3))
    swaps = tuple(SwappedCaption(text=f"a cat, {n}", annotation=n, kind="replace_object") for n in range(2))
    shown = wrong_captions(Learned(hard=hard, swaps=swaps), [Caption(text="a dog, 0")])
    assert shown is not None
    assert shown.count('class="score"') == MOST_WRONG
    assert f"{MOST_WRONG} of {MOST_WRONG + 3}" in shown
    assert "&lt;0&gt;" in shown
    assert shown.count("<ins>") == 1  # the other is about an annotation that the record does not have
    assert "replace object" in shown


def test_without_wrong_captions_there_is_no_empty_part() -> None:
    assert wrong_captions(Learned(), [Caption(text="a dog")]) is None
