"""A tagger trained on a treebank: made in code here, of sentences in the manner of captions."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.phrases import measure_quality
from benchmarks.treebank_tagger import accuracy, read_treebank, split, train_tagger
from concepts.phrases import PhraseConfig, PhraseExtractor
from shards.errors import InputError

WORDS = {
    "DET": ("a", "the", "one"),
    "ADJ": ("red", "small", "old"),
    "NOUN": ("dog", "boat", "tree", "house", "ball", "woman"),
    "VERB": ("sits", "runs", "sees"),
    "ADP": ("on", "near", "under"),
    "PUNCT": (".",),
}
PATTERN = ("DET", "ADJ", "NOUN", "VERB", "ADP", "DET", "NOUN", "PUNCT")


def write_treebank(path: Path, *, sentences: int, seed: int = 0) -> Path:
    rng = random.Random(seed)
    lines = []
    for number in range(sentences):
        classes = [name for name in PATTERN if name != "ADJ" or rng.random() < 0.5]
        lines.append(f"# sent_id = {number}")
        for place, name in enumerate(classes, start=1):
            word = rng.choice(WORDS[name])
            lines.append(f"{place}\t{word}\t{word}\t{name}\t_\t_\t{place - 1}\t{'root' if place == 1 else 'dep'}\t_\t_")
        lines.append("")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_tagger_learns_from_a_treebank_and_finds_nouns_from_its_folder(tmp_path: Path) -> None:
    pytest.importorskip("spacy", reason="spaCy is not installed (extra `text`)")
    learned, held = split(read_treebank(write_treebank(tmp_path / "made.conllu", sentences=120)))
    assert (len(learned), len(held)) == (108, 12)
    untrained, trained = (train_tagger(learned, steps=steps) for steps in (1, 25))
    assert accuracy(trained, held) > 0.95 > accuracy(untrained, held)
    assert train_tagger(learned, steps=2).to_bytes(exclude=["meta"]) == train_tagger(learned, steps=2).to_bytes(
        exclude=["meta"]
    )
    trained.to_disk(tmp_path / "tagger")
    extractor = PhraseExtractor(PhraseConfig(tagger=str(tmp_path / "tagger")))
    assert extractor.nouns(["the old woman sees a small dog ."]) == [["woman", "dog"]]
    assert 0 < measure_quality(extractor.nouns)["recall"] <= 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a dog runs on the grass\n", "no CoNLL-U"),
        ("1\ta\ta\t_\t_\t_\t0\troot\t_\t_\n\n", "no word has a universal part of speech"),
        ("", "no CoNLL-U"),
    ],
)
def test_what_is_no_treebank_is_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    pytest.importorskip("spacy", reason="spaCy is not installed (extra `text`)")
    (tmp_path / "no.conllu").write_text(text)
    with pytest.raises(InputError, match=said):
        read_treebank(tmp_path / "no.conllu")
    with pytest.raises(InputError, match="cannot be read"):
        read_treebank(tmp_path / "nowhere.conllu")
