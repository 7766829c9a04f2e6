"""COCO's boxes on pictures that COCO's captions were stored with, and our own shards indexed as anybody's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.cli import main
from shards.reader import Dataset, open_dataset
from shards.verify import verify


@pytest.fixture(scope="module")
def coco(real_data: Path) -> Path:
    return real_data / "coco2017"


@pytest.fixture(scope="module")
def output(coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO's val captions in shards of fifty, and its val objects in a dataset of their own."""
    folder = tmp_path_factory.mktemp("coco")
    for kind, name in (("coco_captions", "captions"), ("coco_instances", "instances")):
        words = [f"source.annotations={coco}/annotations/{name}_val2017.json", f"source.media={coco / 'val2017'}"]
        limits = ["records_per_shard=50", "reject_share=1"]
        assert main(["shards", f"source.kind={kind}", *words, *limits, f"output={folder / name}"]) == 0
    return folder


def by_file(dataset: Dataset) -> dict[str | None, object]:
    return {record.origin.file: record.annotations for record in dataset.records(payload=False)}


def test_attached_boxes_are_those_that_a_conversion_of_their_own_would_store(output: Path, coco: Path) -> None:
    annotations = coco / "annotations" / "instances_val2017.json"
    words = ["annotate", "coco_instances", f"dataset={output / 'captions'}", f"source.annotations={annotations}"]
    assert main([*words, "reject_share=1"]) == 0
    seen = open_dataset(output / "captions", annotations="coco_instances")
    own = open_dataset(output / "instances")
    stored = {record.origin.file for record in open_dataset(output / "captions").records(payload=False)}
    expected = {file: found for file, found in by_file(own).items() if file in stored}
    assert expected
    assert by_file(seen) == expected
    (ledger,) = (output / "captions" / "sidecars").glob("*/ledger.json")
    assert json.loads(ledger.read_text())["raw_annotations"] == len(json.loads(annotations.read_text())["annotations"])
    assert verify(output / "captions") == []


def test_our_own_tars_indexed_as_anybodys_hold_the_same_pictures(output: Path) -> None:
    words = ["index", f"shards={output / 'captions' / 'shards'}/*.tar", f"output={output / 'indexed'}"]
    assert main(words) == 0
    ours, theirs = open_dataset(output / "captions"), open_dataset(output / "indexed")
    for own, foreign in zip(ours.records(), theirs.records(), strict=True):
        assert dict(own.payload) == dict(foreign.payload)
        assert own.media == foreign.media
        assert own.annotations[0].text == foreign.annotations[0].text  # type: ignore[union-attr]
    assert verify(output / "indexed") == []
