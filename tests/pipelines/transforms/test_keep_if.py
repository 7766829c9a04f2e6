"""Filters lose nothing silently: whatever they drop is a reject with the reason `filtered`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.transform import Thinned
from pipelines.transforms.keep_if import Config, build
from shards.errors import ConfigError
from shards.records import Caption, Media, Origin, Question, Record, Reject

ORIGIN = Origin(dataset="d", split="train", id="1")


@pytest.fixture
def source(photos: Path, tmp_path: Path, picture: Any) -> dict[str, Any]:
    for name, size in (("small", (9, 40)), ("long", (100, 20)), ("fine", (40, 30)), ("wordy", (40, 40))):
        (photos / f"{name}.jpg").write_bytes(picture(*size))
    lines = [
        "small.jpg#0\ttwo words",
        "long.jpg#0\ttwo words",
        "fine.jpg#0\tone",
        "fine.jpg#1\ttwo words",
        "fine.jpg#2\ta b c d e",
        "wordy.jpg#0\ta b c d e",
    ]
    (tmp_path / "x.token").write_text("\n".join(lines) + "\n")
    return {"kind": "flickr_captions", "annotations": str(tmp_path / "x.token"), "media": str(photos)}


def test_pictures_and_captions_are_filtered_with_a_reason_each(convert: Any, source: dict[str, Any]) -> None:
    rule = {"kind": "keep_if", "min_side": 10, "max_aspect": 4, "min_words": 2, "max_words": 4}
    done = convert(source, transforms=[rule], reject_count=0)
    assert done.captions == {"fine.jpg": ["two words"]}
    assert done.reasons() == {"small.jpg": "filtered", "long.jpg": "filtered", "wordy.jpg": "filtered"}
    assert {r.id for r in done.rejects if r.level == "annotation"} == {"fine.jpg#0", "fine.jpg#2", "wordy.jpg#0"}
    assert done.card.raw_annotations == 6


def test_without_settings_it_keeps_everything(convert: Any, source: dict[str, Any]) -> None:
    done = convert(source, transforms=["keep_if"])
    assert len(done.captions) == 4
    assert done.rejects == []


def test_a_misspelt_kind_or_key_is_named_before_anything_is_read(convert: Any, source: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"transforms\.0\.kind: there is no kind 'keep_fi': did you mean 'keep_if'"):
        convert(source, transforms=["keep_fi"])
    with pytest.raises(ConfigError, match=r"unknown key 'transforms\.1\.min_sid': did you mean 'min_side'"):
        convert(source, transforms=["clean_text", {"kind": "keep_if", "min_sid": 3}])


def test_clips_and_sounds_are_filtered_by_their_length() -> None:
    rule = build(Config(min_seconds=1.0, max_seconds=10.0))
    for seconds, kept in ((0.5, False), (1.0, True), (10.0, True), (10.5, False)):
        media = Media(member="wav", kind="audio", duration_s=seconds)
        record = Record(key="k", origin=ORIGIN, media=(media,), annotations=(Caption(text="rain"),))
        result = rule(record)
        assert (result is record) is kept
        assert kept or (isinstance(result, Reject) and result.reason == "filtered")


def test_questions_count_their_words_too() -> None:
    questions = (Question(id="short", question="Why?"), Question(id="long", question="Why is it red?"))
    record = Record(key="k", origin=ORIGIN, media=(), annotations=questions)
    result = build(Config(min_words=2))(record)
    assert isinstance(result, Thinned)
    assert [reject.id for reject in result.rejects] == ["short"]


def test_other_languages_are_filtered() -> None:
    pytest.importorskip("py3langid", reason="the extra `language` is not installed")
    captions = (
        Caption(id="en", text="A man is riding a bicycle down the street."),
        Caption(id="de", text="Ein Mann fährt mit dem Fahrrad die Straße entlang."),
        Caption(id="fr", text="Un homme fait du vélo dans la rue avec son chien."),
    )
    record = Record(key="k", origin=ORIGIN, media=(), annotations=captions)
    result = build(Config(languages=("en",)))(record)
    assert isinstance(result, Thinned)
    assert [annotation.id for annotation in result.record.annotations] == ["en"]
    assert "'de'" in result.rejects[0].detail
