"""Measures: what the headers say is counted once, for media and annotations of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.report.measures import measure, measures_section, sampled_headers
from shards.records import Caption, Detection, Media, Origin, Record
from tests.jobs.report.modalities import kinds, write_kind


def record(*annotations: Caption | Detection, media: tuple[Media, ...] = ()) -> Record:
    return Record(key="k", origin=Origin(dataset="d", split="s", id="1"), media=media, annotations=annotations)


def test_sizes_lengths_and_counts_are_those_of_the_headers() -> None:
    photo = Media(member="jpg", kind="image", width=200, height=100)
    measures = measure(
        [
            record(Caption(text="a dog  runs"), Caption(text="two"), media=(photo,)),
            record(Detection(box=(0, 0, 100, 50), label="dog"), media=(photo, photo)),
        ]
    )
    assert measures.records == 2
    assert measures.numbers["Picture width", "px"] == (200, 200, 200)
    assert measures.numbers["Caption words", ""] == (3, 1)
    assert measures.numbers["Annotations per record", ""] == (2, 1)
    assert measures.numbers["Box side in picture", "%"] == pytest.approx((50.0,))
    assert measures.words == {"Formats": {"jpg": 3}, "Labels": {"dog": 1}}


def test_a_sample_is_spread_over_the_dataset_and_says_how_large_it_is(tmp_path: Path) -> None:
    dataset = write_kind(tmp_path / "many", kinds()["texts"], records=40)
    keys = [found.key for found in sampled_headers(dataset, 4)]
    assert keys == ["many-test-000", "many-test-010", "many-test-020", "many-test-030"]
    assert "Over 4 of the 40 records, spread evenly" in (measures_section(dataset, sample=4) or "")
    assert "Over all records" in (measures_section(dataset, sample=400) or "")


def test_what_is_the_same_everywhere_is_a_sentence_and_no_chart(tmp_path: Path) -> None:
    dataset = write_kind(tmp_path / "flat", kinds()["objects"], records=3)
    section = measures_section(dataset, sample=10) or ""
    assert "picture width: 160 px" in section
    assert "annotations per record: 2" in section
    assert "Picture width" not in section
    assert section.count("<figure") == 2  # the sides of boxes, and the labels, do vary


@pytest.mark.parametrize("name", kinds())
def test_every_kind_of_record_has_measures(tmp_path: Path, name: str) -> None:
    assert measures_section(write_kind(tmp_path / name, kinds()[name]), sample=10) is not None


def test_a_dataset_whose_shard_is_gone_has_none(tmp_path: Path) -> None:
    dataset = write_kind(tmp_path / "gone", kinds()["texts"])
    next((tmp_path / "gone" / "shards").iterdir()).unlink()
    assert measures_section(dataset, sample=10) is None
