from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import tarfile
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shards.errors import DamagedRecordError, DatasetError
from shards.reader import Dataset, open_dataset
from shards.records import Record

MakeDataset = Callable[..., Dataset]
MakeRecord = Callable[..., Record]


def _everything(dataset: Dataset) -> list[Record]:
    return list(dataset.records())


def test_records_come_back_in_the_order_in_which_they_were_written(
    make_dataset: MakeDataset, make_record: MakeRecord
) -> None:
    dataset = make_dataset(units=3, records=4)
    assert _everything(dataset) == [make_record(unit * 100 + place) for unit in range(3) for place in range(4)]
    assert [record.key for record in dataset.records(1, payload=False)] == [f"made-0010{n}" for n in range(4)]
    assert (len(dataset), dataset.shard_sizes(), dataset.shard_sizes("annotations")) == (12, (4, 4, 4), (8, 8, 8))


def test_a_dataset_in_an_object_store_reads_the_same(make_dataset: MakeDataset) -> None:
    remote = make_dataset(f"memory://reader-{uuid.uuid4().hex}")
    local = make_dataset()
    assert _everything(remote) == _everything(local)
    assert remote.digest == local.digest


def test_the_header_alone_is_read_without_media(make_dataset: MakeDataset, make_record: MakeRecord) -> None:
    record = make_dataset().record(2, 3, payload=False)
    assert record.payload == {}
    assert record.annotations == make_record(203).annotations


@pytest.mark.parametrize("payload", [True, False])
def test_damaged_records_may_be_left_out_and_are_told_of(make_dataset: MakeDataset, payload: bool) -> None:
    dataset = make_dataset(units=2, records=4)
    tar = Path(dataset.path) / "shards" / f"{dataset.manifest[1].name}.tar"
    content = bytearray(tar.read_bytes())
    for row in (0, 2):
        _, offset, _, _ = next(member for member in dataset.index(1).members(row) if member[0] == "json")
        content[offset] ^= 0xFF
    tar.write_bytes(content)
    with pytest.raises(DamagedRecordError, match="checksum"):
        list(dataset.records(payload=payload))
    told: list[tuple[int, int]] = []
    found = list(dataset.records(payload=payload, leave_out=lambda shard, row, problem: told.append((shard, row))))
    assert told == [(1, 0), (1, 2)]
    assert [record.key for record in found] == [*dataset.index(0).keys, "made-00101", "made-00103"]


def test_a_key_is_found_in_its_shard(make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    assert dataset.locate("made-00102") == (1, 2)
    with pytest.raises(KeyError):
        dataset.locate("made-99999")


def test_a_row_that_does_not_exist_is_an_error_and_not_another_record(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(units=1, records=2)
    for row in (-1, 2):
        with pytest.raises(IndexError, match="2 records"):
            dataset.record(0, row)


def test_a_dataset_travels_to_a_worker_without_its_open_files(make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    records = _everything(dataset)
    blob = pickle.dumps(dataset)
    assert len(blob) < 5000
    assert _everything(pickle.loads(blob)) == records


def _read_in_worker(
    dataset: Dataset, rows: list[tuple[int, int]], results: multiprocessing.SimpleQueue[list[str]]
) -> None:
    results.put([dataset.record(*row).key for row in rows])


def test_forked_workers_share_a_dataset_that_was_open_before(make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    keys = [record.key for record in dataset.records()]
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    rows = [(shard, row) for shard in range(3) for row in range(4)]
    workers = [context.Process(target=_read_in_worker, args=(dataset, rows, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [results.get() for _ in workers] == [keys, keys]


def test_threads_read_while_files_are_closed_behind_them(
    make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(units=6, records=2)
    monkeypatch.setattr("shards.members._OPEN_FILES", 1)
    monkeypatch.setattr("shards.reader._INDICES", 2)
    rows = [(shard, row) for shard in range(6) for row in range(2)] * 30
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: dataset.record(*row).origin.id, rows))
    assert found == [str(shard * 100 + row) for shard, row in rows]


def test_only_a_bounded_number_of_files_stays_open(make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(units=6, records=1)
    monkeypatch.setattr("shards.members._OPEN_FILES", 2)
    before = len(os.listdir("/proc/self/fd"))
    for shard in range(6):
        dataset.record(shard, 0)
    assert len(os.listdir("/proc/self/fd")) <= before + 2


@pytest.mark.parametrize("member", ["jpg", "json"])
def test_a_flipped_bit_is_reported_with_shard_key_and_member(
    make_dataset: MakeDataset, tmp_path: Path, member: str
) -> None:
    dataset = make_dataset()
    path = tmp_path / "made" / "shards" / "made-train-00001.tar"
    offset = next(place[1] for place in dataset.index(1).members(2) if place[0] == member)
    data = bytearray(path.read_bytes())
    data[offset + 5] ^= 1
    path.write_bytes(data)
    sentence = f"made-train-00001, record 'made-00102': its '{member}' member does not match"
    with pytest.raises(DamagedRecordError, match=sentence):
        dataset.record(1, 2)
    with pytest.raises(DamagedRecordError, match=sentence):
        list(dataset.raw(1))
    with pytest.raises(DamagedRecordError, match=sentence):
        list(dataset.records(1))
    assert dataset.record(1, 1).key == "made-00101"


def test_raw_members_are_those_of_the_tar(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset()
    with tarfile.open(tmp_path / "made" / "shards" / "made-train-00001.tar") as tar:
        stored = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    found = {f"{key}.{name}": data for key, members in dataset.raw(1) for name, data in members.items()}
    assert list(found.items()) == list(stored.items())


def test_a_shard_cut_short_is_reported_for_the_records_it_lost(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset(units=1)
    path = tmp_path / "made" / "shards" / "made-train-00000.tar"
    offset = next(place[1] for place in dataset.index(0).members(3) if place[0] == "jpg")
    os.truncate(path, offset + 10)
    assert dataset.record(0, 2).key == "made-00002"
    with pytest.raises(DamagedRecordError, match="'made-00003': its 'jpg' member ends after 10 of 703 bytes"):
        dataset.record(0, 3)


def test_a_shard_that_is_gone_is_reported_for_each_of_its_records(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset(units=2)
    (tmp_path / "made" / "shards" / "made-train-00000.tar").unlink()
    with pytest.raises(DamagedRecordError, match=r"'made-00002': .*made-train-00000\.tar is missing"):
        dataset.record(0, 2)
    assert dataset.record(1, 0).key == "made-00100"


def test_an_unfinished_dataset_is_not_opened(make_dataset: MakeDataset, tmp_path: Path) -> None:
    make_dataset()
    (tmp_path / "made" / "dataset.json").unlink()
    with pytest.raises(DatasetError, match="no finished dataset"):
        open_dataset(tmp_path / "made")


def test_a_card_of_another_manifest_is_not_believed(make_dataset: MakeDataset, tmp_path: Path) -> None:
    make_dataset()
    card = json.loads((tmp_path / "made" / "dataset.json").read_text())
    (tmp_path / "made" / "dataset.json").write_text(json.dumps(card | {"manifest_digest": "0" * 16}))
    with pytest.raises(DatasetError, match="not the one its card names"):
        open_dataset(tmp_path / "made")
