"""Datasets in stores: the same records by every way of reading, few requests, and a sentence where it cannot go on."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shards.cache import FOLDER
from shards.config import validate
from shards.errors import ConfigError, DamagedRecordError, StoreError
from shards.patience import Patience
from shards.reader import Dataset, open_dataset
from shards.records import Record
from shards.remote import CacheConfig
from shards.remote_storage import RemoteStorage
from shards.stores import open_storage
from shards.verify import verify
from tests.faulty_store import Faults, faults

__all__ = ["faults"]

MakeDataset = Callable[..., Dataset]
MODES: dict[str, dict[str, Any]] = {
    "ranges": {"mode": "ranges"},
    "ranges, none ahead": {"mode": "ranges", "ahead": 0},
    "shards": {"mode": "shards"},
    "a cache that is too small": {"mode": "shards", "bytes": 120_000},
    "a cache that holds nothing": {"mode": "shards", "bytes": 1},
    "off": {"mode": "off"},
}


@pytest.fixture
def local(make_dataset: MakeDataset) -> Dataset:
    return make_dataset(units=4, records=12)


@pytest.fixture
def remote(local: Dataset, faults: Faults, tmp_path: Path) -> Callable[..., Dataset]:
    """Open the local dataset as one in a store, read as told."""

    def opened(**settings: Any) -> Dataset:
        if settings.get("mode") == "shards":
            settings = {"folder": str(tmp_path / "cache"), **settings}
        return open_dataset(f"faulty://{local.path}", cache=CacheConfig(**settings))

    return opened


def ask_quickly(dataset: Dataset, attempts: int = 3) -> Dataset:
    assert isinstance(dataset.storage, RemoteStorage)
    dataset.storage.patience = Patience(attempts=attempts, timeout_s=0.2, first_pause_s=0.001)
    return dataset


@pytest.mark.parametrize("mode", MODES)
def test_every_way_of_reading_gives_the_same_records(local: Dataset, remote: Callable[..., Dataset], mode: str) -> None:
    dataset = remote(**MODES[mode])
    assert list(dataset.records()) == list(local.records())
    assert list(dataset.records(payload=False)) == list(local.records(payload=False))
    assert [list(dataset.raw(shard)) for shard in range(4)] == [list(local.raw(shard)) for shard in range(4)]
    for shard, row in [(3, 1), (0, 7), (3, 0)]:
        assert dataset.record(shard, row) == local.record(shard, row)


@pytest.mark.parametrize("mode", MODES)
def test_a_store_that_fails_one_request_in_five_loses_nothing(
    local: Dataset, remote: Callable[..., Dataset], faults: Faults, mode: str
) -> None:
    faults.failing_share = 0.2
    dataset = remote(**MODES[mode])
    assert isinstance(dataset.storage, RemoteStorage)
    dataset.storage.patience = replace(dataset.storage.patience, first_pause_s=0.001, attempts=12)
    assert list(dataset.records()) == list(local.records())
    assert faults.failed > 0


def test_neighbours_are_read_in_one_request_and_an_announced_record_in_none(
    remote: Callable[..., Dataset], faults: Faults
) -> None:
    dataset = remote()
    list(dataset.records())
    assert set(faults.ranges().values()) == {1}
    assert len(faults.ranges()) == 4
    faults.asked.clear()
    dataset.expect(2, lambda: [3, 4, 5])
    deadline = time.monotonic() + 5
    while not faults.ranges() and time.monotonic() < deadline:
        time.sleep(0.01)
    for row in (5, 3, 4):
        dataset.record(2, row)
    assert sum(faults.ranges().values()) == 1
    dataset.record(2, 3)
    assert sum(faults.ranges().values()) == 2


def test_a_cached_shard_is_asked_for_once_by_all_who_open_the_dataset(
    remote: Callable[..., Dataset], local: Dataset, faults: Faults
) -> None:
    for _ in range(3):
        assert list(remote(mode="shards").records()) == list(local.records())
    assert faults.ranges() == {f"made-train-0000{number}.tar": 1 for number in range(4)}


@pytest.mark.parametrize("mode", ["shards", "ranges"])
def test_reading_ahead_hides_the_store_s_slowness(remote: Callable[..., Dataset], faults: Faults, mode: str) -> None:
    def seconds(ahead: int, folder: str) -> float:
        settings = {"folder": folder} if mode == "shards" else {}
        dataset = remote(mode=mode, ahead=ahead, threads=4, **settings)
        for shard in range(4):
            dataset.index(shard)
        began = time.monotonic()
        list(dataset.records())
        return time.monotonic() - began

    folder = str(Path(remote().path.removeprefix("faulty://")).parent)
    faults.delay_s = 0.25 if mode == "shards" else 0.03  # there are 4 shards and 48 records
    one_after_the_other = seconds(ahead=0, folder=f"{folder}/one")
    assert one_after_the_other > 1.0
    assert seconds(ahead=8, folder=f"{folder}/other") < 0.7 * one_after_the_other


@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "another version"])
def test_a_damaged_or_stale_entry_of_the_cache_is_fetched_again(
    remote: Callable[..., Dataset], local: Dataset, faults: Faults, tmp_path: Path, damage: str
) -> None:
    dataset = remote(mode="shards")
    list(dataset.records())
    for path in (tmp_path / "cache" / FOLDER).glob("*.tar"):
        data = path.read_bytes()
        middle = len(data) // 2
        other = bytes(byte ^ 0x55 for byte in data)
        path.write_bytes(
            {
                "a flipped bit": data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :],
                "cut short": data[:middle],
                "another version": other,
            }[damage]
        )
    faults.asked.clear()
    assert list(dataset.records()) == list(local.records())
    refetched = set(faults.ranges().values())
    assert refetched <= {1}
    if damage != "a flipped bit":  # which may lie between two members
        assert len(faults.ranges()) == 4
        assert list(remote(mode="shards").records()) == list(local.records())
        assert len(faults.ranges()) == sum(faults.ranges().values()) == 4


@pytest.mark.parametrize("mode", MODES)
def test_damage_in_the_store_is_named_with_shard_and_key_and_the_rest_is_read(
    remote: Callable[..., Dataset], local: Dataset, mode: str
) -> None:
    path = Path(local.path) / "shards" / "made-train-00001.tar"
    offset = next(place[1] for place in local.index(1).members(2) if place[0] == "jpg")
    data = bytearray(path.read_bytes())
    data[offset + 5] ^= 1
    path.write_bytes(data)
    dataset = remote(**MODES[mode])
    with pytest.raises(
        DamagedRecordError, match=r"made-train-00001, record 'made-00102': its 'jpg' member does not match"
    ):
        dataset.record(1, 2)
    assert dataset.record(1, 3).key == "made-00103"
    cut = next(place[1] for place in local.index(2).members(5) if place[0] == "jpg") + 3
    os.truncate(Path(local.path) / "shards" / "made-train-00002.tar", cut)
    with pytest.raises(DamagedRecordError, match=r"'made-00205': its 'jpg' member ends after 3 of"):
        dataset.record(2, 5)
    with pytest.raises(DamagedRecordError, match=r"'made-00206': its 'jpg' member ends after 0 of"):
        dataset.record(2, 6)
    assert dataset.record(2, 4).key == "made-00204"
    (Path(local.path) / "shards" / "made-train-00003.tar").unlink()
    dataset.expect(3, lambda: range(12))
    with pytest.raises(
        DamagedRecordError, match=r"made-train-00003, record 'made-00301': .*made-train-00003\.tar is missing"
    ):
        dataset.record(3, 1)


def test_answers_that_are_cut_short_are_asked_for_again(remote: Callable[..., Dataset], faults: Faults) -> None:
    dataset = ask_quickly(remote(mode="off"))
    dataset.index(0)
    faults.lying = True
    with pytest.raises(StoreError, match=r"ended after"):
        dataset.record(0, 0)
    faults.lying = False
    assert dataset.record(0, 0).key == "made-00000"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", ["failing", "hanging"])
def test_a_store_that_stays_away_stops_the_run_with_a_sentence_and_no_record_is_called_damaged(
    remote: Callable[..., Dataset], faults: Faults, mode: str, fault: str
) -> None:
    dataset = ask_quickly(remote(**MODES[mode]))
    dataset.index(0)
    faults.hanging, faults.failing_share = fault == "hanging", float(fault == "failing")
    dataset.expect(0, lambda: range(5))
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"made-train-00000\.tar: the store did not answer 3 requests") as problem:
        dataset.record(0, 2)
    assert time.monotonic() - began < 5
    assert not isinstance(problem.value, DamagedRecordError)


def test_a_dataset_in_a_store_travels_small(remote: Callable[..., Dataset], local: Dataset) -> None:
    dataset = remote(mode="shards")
    list(dataset.records())
    blob = pickle.dumps(dataset)
    assert len(blob) < 6000
    assert list(pickle.loads(blob).records()) == list(local.records())


def test_a_process_forked_while_threads_read_reads_on_by_itself(
    remote: Callable[..., Dataset], local: Dataset, faults: Faults
) -> None:
    dataset = remote()
    faults.delay_s = 0.02
    for shard in range(4):
        dataset.expect(shard, lambda: range(12))
    with dataset._lock, dataset._members._lock:  # as a thread may hold them at any moment
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            os._exit(0 if list(dataset.records()) == list(local.records()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(dataset.records()) == list(local.records())


def test_a_store_is_verified_with_patience(remote: Callable[..., Dataset], faults: Faults) -> None:
    faults.failing_share = 0.05
    assert verify(remote().path) == []
    assert faults.failed > 0


def test_a_file_of_a_store_is_read_like_one_of_a_disk(faults: Faults, tmp_path: Path) -> None:
    data = os.urandom(9_000_000)
    (tmp_path / "f").write_bytes(data)
    with open_storage(f"faulty://{tmp_path}").open_read("f") as file:
        assert file.read(10) == data[:10]
        assert file.seek(-20, os.SEEK_END) == 8_999_980
        assert file.read() == data[-20:]
        assert file.seek(5_000_000) == 5_000_000
        assert file.read(4_500_000) == data[5_000_000:]
        assert file.read(1) == b""
    with pytest.raises(FileNotFoundError):
        open_storage(f"faulty://{tmp_path}").open_read("g")


@pytest.mark.parametrize(
    ("settings", "says"), [({"mode": "shards"}, "mode=shards needs folder"), ({"bytes": 0}, "cache.bytes")]
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        validate(CacheConfig, settings, where="cache")


def test_a_cache_folder_that_cannot_be_made_is_refused_before_the_work_starts(
    remote: Callable[..., Dataset], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"cache\.folder=.*choose another one"):
        remote(mode="shards", folder=str(tmp_path / "file" / "cache"))


def test_nothing_is_announced_where_the_data_lie_on_this_machine(
    local: Dataset, make_record: Callable[..., Record]
) -> None:
    assert local.ahead == 0
    local.expect(0, lambda: pytest.fail("nobody needs to know"))
    assert local.record(0, 1) == make_record(1)
