"""Rejects: each reason has its examples, however many another reason has; the ledger says whether it closes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.report.rejects import MOST_EXAMPLES, dataset_rejects, ledger_sentence, rejects_section
from shards.errors import DatasetError
from shards.reader import Dataset
from shards.records import Reject
from tests.jobs.report.modalities import kinds, write_kind


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    many = [Reject(id=f"m{n}", reason="missing_media", detail="it is not there", annotations=2) for n in range(60)]
    rare = Reject(id="<rare>", reason="box_outside", detail="x" * 1000, level="annotation", item="7")
    return write_kind(tmp_path / "lossy", kinds()["objects"], records=2, rejects=[*many, rare])


def test_every_reason_has_an_example_and_the_page_stays_short(dataset: Dataset) -> None:
    section = rejects_section([dataset_rejects(dataset)])
    assert section.count("<tr>") - 1 <= MOST_EXAMPLES
    assert "&lt;rare&gt;" in section
    assert "x" * 301 not in section
    assert "<b>60</b>" in section
    assert "and 40 more in rejects.parquet" in section


def test_the_ledger_is_a_sentence_of_numbers_that_add_up(dataset: Dataset) -> None:
    said = ledger_sentence(dataset.card, dataset_rejects(dataset))
    assert "62 raw items in = 2 records out + 60 rejected" in said
    assert "125 raw annotations in = 4 stored + 1 rejected by name + 120 lost with their item" in said
    assert said.endswith("The ledger closes.")


def test_a_ledger_that_does_not_close_is_not_glossed_over(dataset: Dataset) -> None:
    for wrong in (
        replace(dataset.card, raw_items=dataset.card.raw_items + 1),
        replace(dataset.card, annotations=dataset.card.annotations - 1),
    ):
        assert "does NOT close" in ledger_sentence(wrong, dataset_rejects(dataset))


def test_a_dataset_without_rejects_says_so(tmp_path: Path) -> None:
    assert "None: every raw item" in rejects_section([dataset_rejects(write_kind(tmp_path / "x", kinds()["texts"]))])


def test_a_missing_or_damaged_list_of_rejects_is_a_sentence(dataset: Dataset) -> None:
    path = Path(dataset.path) / "rejects.parquet"
    path.write_bytes(b"no parquet")
    with pytest.raises(DatasetError, match="lists no rejects"):
        dataset_rejects(dataset)
    path.unlink()
    with pytest.raises(DatasetError, match="is missing"):
        dataset_rejects(dataset)
