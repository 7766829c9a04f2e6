from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shards.errors import DatasetError
from shards.manifest import Card, manifest_digest, merge, read_card, read_manifest
from shards.reader import Dataset
from shards.records import Record, Reject
from shards.storage import Storage, temporary_name
from shards.stores import open_storage
from shards.writer import ShardWriter, UnitReport

MakeRecord = Callable[..., Record]
WriteUnit = Callable[..., UnitReport]
MakeDataset = Callable[..., Dataset]


def _merge(storage: Storage, *units: str, config_digest: str = "c0ffee") -> Card:
    return merge(storage, name="made", split="train", config={}, config_digest=config_digest, expected_units=units)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_merged_dataset_is_summed_up_in_its_card(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(units=3, records=4)
    card = dataset.card
    assert (card.shards, card.records, card.annotations) == (3, 12, 24)
    assert (card.raw_items, card.raw_annotations, card.rejects) == (14, 30, {"missing_media": 2})
    assert (card.annotation_type, card.media_kinds, card.licences) == ("caption", {"image": 12}, {"CC0": 12})
    assert card.config == {"source": {"kind": "made_in_code"}}
    assert card.manifest_digest == manifest_digest(dataset.manifest)
    assert [entry.name for entry in dataset.manifest] == [f"made-train-0000{n}" for n in range(3)]


def test_rejects_are_listed_with_their_raw_ids(make_dataset: MakeDataset, tmp_path: Path) -> None:
    make_dataset(units=2)
    rows = pq.read_table(tmp_path / "made" / "rejects.parquet").to_pylist()
    names = ("unit", "id", "level", "reason", "detail", "annotations", "item")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("unit1", "r1", "item", "missing_media", "gone", 3, None)
    ]


def test_merging_again_changes_no_byte(make_dataset: MakeDataset, tmp_path: Path) -> None:
    make_dataset()
    before = _files(tmp_path)
    make_dataset()
    assert _files(tmp_path) == before


def test_the_order_in_which_units_were_committed_does_not_matter(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    for name, order in (("forth", (0, 1, 2)), ("back", (2, 1, 0))):
        storage = open_storage(tmp_path / name)
        for unit in order:
            write_unit(storage, unit, [make_record(unit)])
        _merge(storage, "unit0", "unit1", "unit2")
    assert _files(tmp_path / "forth") == _files(tmp_path / "back")


def test_a_unit_without_a_commit_record_stops_the_merge(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    storage = open_storage(tmp_path)
    write_unit(storage, 0, [make_record(0)])
    with pytest.raises(DatasetError, match=r"1 of 2 units are not committed \(the first is unit1"):
        _merge(storage, "unit0", "unit1")
    assert not storage.exists("dataset.json")


def test_a_unit_that_the_raw_data_no_longer_has_stops_the_merge(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    storage = open_storage(tmp_path)
    for unit in range(2):
        write_unit(storage, unit, [make_record(unit)])
    with pytest.raises(DatasetError, match="unit1 is committed but no part"):
        _merge(storage, "unit0")


def test_a_folder_of_another_config_is_not_merged(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    storage = open_storage(tmp_path)
    write_unit(storage, 0, [make_record(0)])
    with pytest.raises(DatasetError, match=r"another config \(digest c0ffee, yours is decaf"):
        _merge(storage, "unit0", config_digest="decaf")


def test_a_key_in_two_shards_stops_the_merge_and_both_are_named(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    storage = open_storage(tmp_path)
    write_unit(storage, 0, [make_record(1), make_record(2)])
    write_unit(storage, 1, [make_record(2), make_record(3)])
    with pytest.raises(DatasetError, match="'made-00002' occurs in made-train-00000 and in made-train-00001"):
        _merge(storage, "unit0", "unit1")


def test_a_committed_shard_that_is_gone_or_cut_stops_the_merge(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    storage = open_storage(tmp_path)
    write_unit(storage, 0, [make_record(1)])
    path = tmp_path / "shards" / "made-train-00000.tar"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="10239 bytes and was committed with 10240"):
        _merge(storage, "unit0")
    path.unlink()
    with pytest.raises(DatasetError, match=r"is missing; remove commits/unit0\.json"):
        _merge(storage, "unit0")


def test_what_killed_attempts_left_behind_is_swept(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    storage = open_storage(tmp_path)
    write_unit(storage, 0, [make_record(1)])
    _merge(storage, "unit0")
    clean = _files(tmp_path)
    for name in ("shards/made-train-00000.tar", "index/made-train-00000.parquet", "commits/u.json", "dataset.json"):
        (tmp_path / temporary_name(name)).write_bytes(b"cut")
    (tmp_path / "shards" / "made-train-00009.tar").write_bytes(b"published, never committed")
    _merge(storage, "unit0")
    assert _files(tmp_path) == clean


def test_a_dataset_of_rejects_alone_has_no_shards(tmp_path: Path, write_unit: WriteUnit) -> None:
    storage = open_storage(tmp_path)
    write_unit(storage, 0, [], [Reject(id="a", reason="not_media", detail="html")])
    card = _merge(storage, "unit0")
    assert (card.shards, card.records, card.annotation_type, card.rejects) == (0, 0, None, {"not_media": 1})
    assert read_manifest(storage) == ()


def test_a_live_attempt_beside_a_merge_finds_its_unit_done(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    storage = open_storage(tmp_path)
    late = ShardWriter(storage, dataset="made", split="train", unit="unit0", unit_index=0, config_digest="c0ffee")
    late.add(make_record(1))
    write_unit(storage, 0, [make_record(1)])
    _merge(storage, "unit0")  # sweeps the late attempt's temporary
    assert not late.commit(raw_items=1, raw_annotations=2).committed


def test_a_folder_that_is_no_dataset_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(DatasetError, match="no finished dataset"):
            read_card(open_storage(place))


def test_a_damaged_card_or_manifest_is_explained(make_dataset: MakeDataset, tmp_path: Path) -> None:
    storage = make_dataset().storage
    for broken in (
        b"{",
        b"[]",
        b"{}",
        (tmp_path / "made" / "dataset.json").read_bytes().replace(b'"records": 12', b'"records": "x"'),
    ):
        storage.replace("dataset.json", broken)
        with pytest.raises(DatasetError, match=r"dataset\.json is damaged"):
            read_card(storage)
    storage.replace("manifest.parquet", b"PAR1")
    with pytest.raises(DatasetError, match=r"manifest\.parquet is damaged"):
        read_manifest(storage)
    storage.remove("manifest.parquet")
    with pytest.raises(DatasetError, match=r"manifest\.parquet is missing"):
        read_manifest(storage)
