"""The tokenizer: trained the same everywhere, saved, loaded, and refused with a sentence."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.tokenizer import SPECIALS, WordPiece, load_tokenizer, pad, train_wordpiece

TEXTS = [f"{size} {colour} {kind}" for size in ("small", "large") for colour in ("red", "bluish", "green")
         for kind in ("boats", "boat", "houses", "tréé")]  # fmt: skip

SPELLS = WordPiece([*SPECIALS, *"abcdeé中x[]", "boat", "##s", "##a", "tree", "σ", "##σ", "##ς", "##x"])


def test_the_same_texts_in_any_order_give_the_same_vocabulary(tmp_path: Path) -> None:
    files = []
    for attempt in range(3):
        random.Random(attempt).shuffle(texts := list(TEXTS))
        files.append(train_wordpiece(texts, vocab_size=100, path=tmp_path / f"{attempt}.txt").read_bytes())
    assert files[0] == files[1] == files[2]


def test_a_trained_vocabulary_spells_every_training_text(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(train_wordpiece(TEXTS, vocab_size=100, path=tmp_path))
    assert tokenizer.words[: len(SPECIALS)] == SPECIALS
    assert len(tokenizer) <= 100
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text.replace("é", "e")
    assert tokenizer.encode("дом") == [tokenizer.cls_id, tokenizer.ids["[UNK]"]]


def test_words_and_numbers_of_a_later_task_can_be_spelled(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(train_wordpiece(TEXTS, vocab_size=100, path=tmp_path))
    assert tokenizer.decode(tokenizer.encode("how many zebras? 3")).startswith("how many zebras")
    assert len({tuple(tokenizer.encode(str(count))) for count in range(120)}) == 120


def test_letters_are_kept_where_the_size_asked_for_is_too_small(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(train_wordpiece(["abc cab"], vocab_size=1, path=tmp_path))
    assert tokenizer.decode(tokenizer.encode("bac")) != ""


def test_training_on_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no text"):
        train_wordpiece(["", "  "], vocab_size=10, path=tmp_path)


def test_saving_loading_and_pickling_keep_every_id(tmp_path: Path) -> None:
    tokenizer = WordPiece([*SPECIALS, "a", "##b"])
    for copy in (load_tokenizer(tokenizer.save(tmp_path)), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.words == tokenizer.words
        assert copy.encode("ab [SEP] a") == tokenizer.encode("ab [SEP] a") == [2, 5, 6, 3, 5]


@pytest.mark.parametrize("words", [["a"], ["a", *SPECIALS], [*SPECIALS, "a", "a"]])
def test_a_file_that_is_no_such_vocabulary_is_refused(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    with pytest.raises(ValueError, match="not a WordPiece vocabulary"):
        load_tokenizer(tmp_path)


def test_a_name_that_nothing_resolves_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="neither a vocabulary file nor a name"):
        load_tokenizer("nobody/has-this-tokenizer")


def test_padding_fills_to_the_longest_or_to_a_length() -> None:
    ids, mask = pad([[2, 7], [2]], pad_id=0)
    assert ids.tolist() == [[2, 7], [2, 0]]
    assert mask.tolist() == [[True, True], [True, False]]
    assert torch.equal(pad([[2, 7], [2]], length=4)[1].sum(1), torch.tensor([2, 1]))


_WORDS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=6),
    st.sampled_from(
        [*SPECIALS, "boats", "boat", "tréé", "a[SEP]b", "ΣΑΣ", "\u0301", "\u3000", "\x1c", "\t", "中文", "x" * 120]
    ),
)


@given(texts=st.lists(st.lists(_WORDS, max_size=8).map(" ".join), min_size=1, max_size=4))
def test_looking_words_up_gives_the_pieces_of_the_whole_text(texts: list[str]) -> None:
    encoded = SPELLS.encode_batch(texts)
    whole = SPELLS._backend.encode_batch(texts, add_special_tokens=False)
    assert encoded == [[SPELLS.cls_id, *row.ids] for row in whole]
    assert SPELLS.encode_batch(texts, max_tokens=3) == [row[:3] for row in encoded]


def test_the_words_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.tokenizer._KNOWN", 5)
    tokenizer = WordPiece([*SPECIALS, *"abcdefghij"])
    for letter in "abcdefghij":
        assert tokenizer.encode(letter) == [tokenizer.cls_id, tokenizer.ids[letter]]
    assert len(tokenizer._known) <= 5
