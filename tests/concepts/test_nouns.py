from __future__ import annotations

from collections.abc import Callable

import pytest

from concepts.nouns import NOUNS, NounCounter, ShardUnit, TextUnit, nouns_digest8, record_texts
from concepts.phrases import RULES, RULES_NAME, PhraseConfig, PhraseExtractor
from concepts.vocabulary import count_phrases, merge_counts
from shards.reader import Dataset
from shards.records import Answer, Entailment, Media, Origin, Question, Record
from shards.sidecar import open_sidecar

CONFIG = PhraseConfig(tagger=RULES)


def test_nouns_are_stored_by_record_and_counted_as_if_all_at_once(captioned_dataset: Callable[..., Dataset]) -> None:
    dataset = captioned_dataset()
    counter = NounCounter(CONFIG, tagger=RULES_NAME)
    counts = [counter(ShardUnit(dataset.path, shard)) for shard in range(3)]
    texts = [list(record_texts(record)) for record in dataset.records(payload=False)]
    nouns = [noun for row in texts for found in PhraseExtractor(CONFIG).nouns(row) for noun in found]
    assert list(merge_counts(count.counts for count in counts).items()) == list(count_phrases([nouns]).items())
    assert sum(count.captions for count in counts) == 63
    sidecar = open_sidecar(dataset, f"{NOUNS}-{nouns_digest8(CONFIG, RULES_NAME)}")
    assert sidecar.is_complete
    assert sidecar.row(1, "made-008")["nouns"] == ["tree", "grass", "trees", "water", "sky"]


def test_a_counted_shard_is_read_and_not_tagged_again(
    captioned_dataset: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = captioned_dataset()
    counter = NounCounter(CONFIG, tagger=RULES_NAME)
    units: list[ShardUnit | TextUnit] = [
        ShardUnit(dataset.path, 0),
        TextUnit(dataset.path, ("a dog", "a zoo and a dog")),
    ]
    first = [counter(unit) for unit in units]
    monkeypatch.setattr(PhraseExtractor, "phrases", None)
    again = [counter(unit) for unit in units]
    assert [list(count.counts.items()) for count in again] == [list(count.counts.items()) for count in first]
    assert list(first[1].counts.items()) == [("dog", 2), ("zoo", 1)]


def test_only_texts_that_tell_what_a_picture_shows_are_read() -> None:
    record = Record(
        key="r",
        origin=Origin(dataset="d", split="s", id="1"),
        media=(Media(member="jpg", kind="image"),),
        annotations=(
            Question(question="is there a dog?", answers=(Answer(text="yes"),)),
            Entailment(hypothesis="a cat sleeps", premise=None, label="neutral"),
        ),
    )
    assert list(record_texts(record)) == ["is there a dog?", "a cat sleeps"]
