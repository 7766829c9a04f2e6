from __future__ import annotations

import logging
from pathlib import Path

import pytest

from benchmarks.phrases import precision_and_recall, read_labelled
from concepts import phrases
from concepts.phrases import INSTALLED, LONGEST_PHRASE, RULES, RULES_NAME, PhraseConfig, PhraseExtractor, tally_texts
from shards.errors import ConfigError


def test_the_last_noun_of_each_run_is_its_head() -> None:
    extractor = PhraseExtractor(PhraseConfig(tagger=RULES))
    assert extractor.nouns(["A tennis player holds a wooden tennis racket.", "", "Dogs, cats and a fire truck!"]) == [
        ["player", "racket"],
        [],
        ["dogs", "cats", "truck"],
    ]


def test_repeats_are_kept_and_case_is_not() -> None:
    assert PhraseExtractor(PhraseConfig(tagger=RULES)).nouns(["A Dog near a dog"]) == [["dog", "dog"]]


def test_batch_size_does_not_change_what_is_found() -> None:
    texts = [f"a {thing} on the table" for thing in ("cup", "bowl", "spoon", "fork", "plate")]
    wide, narrow = (PhraseExtractor(PhraseConfig(tagger=RULES, batch_size=size)) for size in (256, 2))
    assert wide.nouns(texts) == narrow.nouns(texts)


def test_falling_back_to_the_rules_is_said_aloud_and_once(caplog: pytest.LogCaptureFixture) -> None:
    import spacy

    if spacy.util.is_package(INSTALLED):
        pytest.skip(f"{INSTALLED} is installed here, so nothing falls back")
    phrases._tell_of_rules.cache_clear()  # another test of this process may have heard it
    with caplog.at_level(logging.WARNING, logger="concepts"):
        for _ in range(2):
            assert PhraseExtractor(PhraseConfig()).name == RULES_NAME
    assert caplog.text.count("rougher") == 1


def test_a_tagger_that_is_nowhere_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"'no_such_tagger' is neither a folder nor an installed spaCy package"):
        PhraseExtractor(PhraseConfig(tagger="no_such_tagger"))


def test_a_folder_that_holds_no_pipeline_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="spaCy cannot load"):
        PhraseExtractor(PhraseConfig(tagger=str(tmp_path)))


def test_a_pipeline_without_tags_is_a_config_error(tmp_path: Path) -> None:
    import spacy

    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(ConfigError, match="assigns no parts of speech"):
        PhraseExtractor(PhraseConfig(tagger=str(tmp_path / "blank")))


def test_a_pipeline_is_named_by_what_it_is_and_not_by_where_it_lies(tmp_path: Path) -> None:
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("attribute_ruler").add([[{"LOWER": {"IN": ["dog", "cat"]}}], [{}]], {"POS": "NOUN"})
    names = []
    for folder in ("here", "there"):
        nlp.to_disk(tmp_path / folder)
        extractor = PhraseExtractor(PhraseConfig(tagger=str(tmp_path / folder)))
        names.append(extractor.name)
        assert extractor.nouns(["Dog sees cat"]) == [["cat"]]
    assert names[0] == names[1]
    assert str(tmp_path) not in names[0]


def test_texts_out_of_the_ordinary_are_bounded_and_counted() -> None:
    texts = [
        "a dog",
        "",
        "\U0001f600 \U0001f436 !!",
        "犬がソファに座っている",
        "un chien près de la façade",
        "a dog and a cat " * 2500,
        "x" * 20_000,
    ]
    config = PhraseConfig(tagger=RULES, max_words=40)
    found = PhraseExtractor(config).nouns(texts)
    assert found[0] == ["dog"]
    assert found[1:4] == [[], [], []]
    assert found[5] == ["dog", "cat"] * 8  # of five words each time
    assert found[6] == []
    tally = tally_texts(texts, max_words=40)
    assert (tally.texts, tally.empty, tally.cut, tally.foreign) == (7, 2, 2, 1)


def test_a_run_of_letters_is_no_phrase() -> None:
    extractor = PhraseExtractor(PhraseConfig(tagger="rules", kinds=("noun", "attribute")))
    runs = "a" * LONGEST_PHRASE, "a" * (LONGEST_PHRASE + 1)
    assert extractor.phrases([f"a red {run} and a dog" for run in runs]) == [[runs[0], "dog"], ["dog"]]


def test_kinds_of_phrases_are_an_option_of_every_tagger() -> None:
    extractor = PhraseExtractor(PhraseConfig(tagger=RULES, kinds=("attribute", "relation")))
    assert extractor.phrases(["A red car near a tree"]) == [["red car", "car near tree"]]
    assert extractor.nouns(["A red car near a tree"]) == [["car", "tree"]]


def test_questions_and_expressions_name_things_too() -> None:
    extractor = PhraseExtractor(PhraseConfig(tagger=RULES))
    assert extractor.nouns(["What color is the umbrella?", "the woman left of the red bus"]) == [
        ["color", "umbrella"],
        ["woman", "bus"],
    ]


def test_the_rules_find_the_heads_that_people_labelled() -> None:
    labelled = read_labelled()
    assert len(labelled) >= 60
    found = PhraseExtractor(PhraseConfig(tagger=RULES)).nouns([caption for caption, _ in labelled])
    precision, recall = precision_and_recall(found, [nouns for _, nouns in labelled])
    assert min(precision, recall) > 0.9
