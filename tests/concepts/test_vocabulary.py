from __future__ import annotations

import random
from pathlib import Path

import pytest

from concepts.vocabulary import (
    Vocabulary,
    VocabularyConfig,
    build_vocabulary,
    count_phrases,
    fold_plurals,
    merge_counts,
    merge_vocabularies,
    read_vocabulary,
    singulars,
)
from shards.config import validate
from shards.errors import ConfigError, DatasetError, InputError
from shards.stores import open_storage

PLAIN = VocabularyConfig(min_count=1, fold_plurals=False, stop=())


def test_partial_counts_merge_to_what_counting_at_once_gives_order_included() -> None:
    rng = random.Random(5)
    lists = [[f"noun{rng.randrange(40)}" for _ in range(rng.randrange(6))] for _ in range(300)]
    parts = [count_phrases(lists[start : start + 37]) for start in range(0, len(lists), 37)]
    whole = count_phrases(lists)
    assert list(merge_counts(parts).items()) == list(whole.items())


def test_frequent_phrases_come_first_and_equals_in_order_of_first_sight() -> None:
    counts = count_phrases([["boat", "tree"], ["dog", "tree"], ["dog", "boat"], ["dog", "sky"]])
    vocabulary = build_vocabulary(counts, PLAIN)
    assert vocabulary.phrases == ("dog", "boat", "tree", "sky")
    assert vocabulary.counts == (3, 2, 2, 1)


def test_counting_from_zero_asks_for_one_occurrence_more() -> None:
    counts = {"dog": 4, "car": 2, "sky": 1}
    config = PLAIN.model_copy(update={"count_from_zero": True})
    assert build_vocabulary(counts, config).counts == (3, 1)
    everything = build_vocabulary(counts, config.model_copy(update={"min_count": 0}))
    assert dict(zip(everything.phrases, everything.counts, strict=True)) == {"dog": 3, "car": 1, "sky": 0}


def test_threshold_cap_and_stop_list_cut_the_vocabulary() -> None:
    counts = {"top": 9, "dog": 5, "car": 4, "sky": 3, "zoo": 1}
    config = VocabularyConfig(min_count=2, cap=2, fold_plurals=False)
    assert build_vocabulary(counts, config).phrases == ("dog", "car")


def test_a_threshold_that_nothing_reaches_is_said_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"no noun out of 1 different ones reaches vocabulary.min_count=3; lower it"):
        build_vocabulary({"dog": 2}, VocabularyConfig(min_count=3))


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("dogs", "dog"),
        ("women", "woman"),
        ("firemen", "fireman"),
        ("puppies", "puppy"),
        ("cookies", "cookie"),
        ("benches", "bench"),
        ("axes", "axe"),
        ("horses", "horse"),
        ("buses", "bus"),
        ("knives", "knife"),
        ("people", "person"),
    ],
)
def test_a_plural_has_its_singular_among_the_candidates(plural: str, singular: str) -> None:
    assert singular in singulars(plural)


@pytest.mark.parametrize("word", ["glass", "bus", "tennis", "glasses", "stairs", "dog", "gas"])
def test_a_word_that_is_no_plural_has_no_singular(word: str) -> None:
    assert singulars(word) == []


def test_plurals_fold_only_where_the_singular_was_seen_and_no_count_is_lost() -> None:
    counts = {"dogs": 3, "cat": 1, "dog": 2, "skies": 4, "cats": 1, "hoofs": 1}
    assert fold_plurals(counts) == {"dog": 5, "cat": 2, "skies": 4, "hoofs": 1}


def test_a_written_vocabulary_reads_back_equal(tmp_path: Path) -> None:
    vocabulary = Vocabulary(phrases=("dög", "cat"), counts=(3, 1), origin={"tagger": "rules"})
    storage = open_storage(tmp_path)
    storage.replace("v.json", vocabulary.to_bytes())
    read = read_vocabulary(storage, "v.json")
    assert read == vocabulary
    assert read.digest == vocabulary.digest
    assert read.origin == {"tagger": "rules"}


def test_an_edited_vocabulary_is_refused(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    storage.replace("v.json", Vocabulary(phrases=("dog",), counts=(3,)).to_bytes().replace(b"dog", b"cat"))
    with pytest.raises(DatasetError, match="edited or damaged"):
        read_vocabulary(storage, "v.json")


@pytest.mark.parametrize("content", [None, b"no json", b"{}", b"[]"])
def test_a_file_that_is_no_vocabulary_is_an_input_error(tmp_path: Path, content: bytes | None) -> None:
    storage = open_storage(tmp_path)
    if content is not None:
        storage.replace("v.json", content)
    with pytest.raises(InputError, match=r"v\.json"):
        read_vocabulary(storage, "v.json")


def test_order_and_counts_name_a_vocabulary_and_its_origin_does_not() -> None:
    one = Vocabulary(phrases=("dog", "cat"), counts=(1, 1), origin={"tagger": "a"})
    assert one.digest == Vocabulary(phrases=("dog", "cat"), counts=(1, 1), origin={"tagger": "b"}).digest
    assert one.digest != Vocabulary(phrases=("cat", "dog"), counts=(1, 1)).digest


def test_datasets_may_be_spelt_from() -> None:
    assert validate(VocabularyConfig, {"from": ["a"]}) == validate(VocabularyConfig, {"datasets": ["a"]})


def test_names_of_a_list_stay_whatever_their_count_and_unseen_ones_come_last() -> None:
    counts = {"dog": 5, "sky": 1, "top": 7, "car": 1}
    config = VocabularyConfig(min_count=2)
    vocabulary = build_vocabulary(counts, config, names=["zebra", "car", "top"])
    assert dict(zip(vocabulary.phrases, vocabulary.counts, strict=True)) == {"top": 7, "dog": 5, "car": 1, "zebra": 0}
    assert vocabulary.phrases[-1] == "zebra"


def test_merged_vocabularies_add_their_counts() -> None:
    one = Vocabulary(phrases=("dog", "cat"), counts=(3, 2), origin={"tagger": "rules"})
    other = Vocabulary(phrases=("cat", "boat"), counts=(4, 1))
    merged = merge_vocabularies([one, other], PLAIN)
    assert (merged.phrases, merged.counts) == (("cat", "dog", "boat"), (6, 3, 1))
    assert [each["digest"] for each in merged.origin["merged"]] == [one.digest, other.digest]
    assert merge_vocabularies([one, other], PLAIN.model_copy(update={"cap": 1})).phrases == ("cat",)
