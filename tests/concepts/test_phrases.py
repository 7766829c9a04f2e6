from __future__ import annotations

import logging
from pathlib import Path

import pytest

from concepts.phrases import INSTALLED, RULES, RULES_NAME, PhraseConfig, PhraseExtractor
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


def test_falling_back_to_the_rules_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    import spacy

    if spacy.util.is_package(INSTALLED):
        pytest.skip(f"{INSTALLED} is installed here, so nothing falls back")
    with caplog.at_level(logging.WARNING, logger="concepts"):
        assert PhraseExtractor(PhraseConfig()).name == RULES_NAME
    assert "rougher" in caplog.text


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
    nlp.add_pipe("attribute_ruler").add([[{"LOWER": {"IN": ["dog", "cat"]}}], [{}]], {"POS": "NOUN"})  # type: ignore[attr-defined]
    names = []
    for folder in ("here", "there"):
        nlp.to_disk(tmp_path / folder)
        extractor = PhraseExtractor(PhraseConfig(tagger=str(tmp_path / folder)))
        names.append(extractor.name)
        assert extractor.nouns(["Dog sees cat"]) == [["cat"]]
    assert names[0] == names[1]
    assert str(tmp_path) not in names[0]
