"""Exactly once on an object store: conditional commits, shards in parts, killed uploads, reads by range; on a local S3 server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.errors import DamagedRecordError, DatasetError
from shards.manifest import merge
from shards.reader import Dataset, open_dataset
from shards.records import Record
from shards.repair import repair
from shards.storage import Storage, temporary_name
from shards.stores import open_storage
from shards.verify import verify
from shards.writer import UnitReport, commit_path

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def storage(s3: str) -> Storage:
    return open_storage(f"{s3}/{uuid.uuid4().hex}/dataset")


def test_of_many_racing_writers_the_store_lets_exactly_one_create(storage: Storage) -> None:
    start = threading.Barrier(6)
    wins: list[int] = []

    def race(number: int) -> None:
        start.wait()
        if storage.create("commits/u.json", b"%d" % number):
            wins.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert storage.read("commits/u.json") == b"%d" % wins[0]
    assert storage.list("commits") == ["commits/u.json"]


def test_two_writers_of_one_unit_leave_one_shard_and_one_winner(
    storage: Storage, make_record: Callable[..., Record], write_unit: Callable[..., UnitReport]
) -> None:
    start = threading.Barrier(2)
    reports: list[UnitReport] = []

    def race() -> None:
        start.wait()
        reports.append(write_unit(storage, 0, [make_record(n) for n in range(5)]))

    threads = [threading.Thread(target=race) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.committed for report in reports) == [False, True]
    assert reports[0] == reports[1]
    merge(storage, name="made", split="train", config={}, config_digest="c0ffee", expected_units=["unit0"])
    assert verify(storage.url) == []
    assert storage.temporaries("shards") == []


def test_a_shard_of_several_parts_is_written_read_by_ranges_and_verified(
    storage: Storage, make_record: Callable[..., Record], write_unit: Callable[..., UnitReport]
) -> None:
    big = [make_record(number, size=9 << 20) for number in range(4)]  # 36 MiB: three parts
    write_unit(storage, 0, big)
    merge(storage, name="made", split="train", config={}, config_digest="c0ffee", expected_units=["unit0"])
    dataset = open_dataset(storage.url)
    assert dataset.record(0, 2).payload == big[2].payload
    assert verify(storage.url) == []


def test_datasets_are_the_same_bytes_on_a_disk_and_on_a_store(
    storage: Storage, make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    local = make_dataset(tmp_path / "local")
    remote = make_dataset(storage.url)
    assert list(remote.records()) == list(local.records())
    for folder in ("shards", "index", "commits"):
        assert storage.list(folder) == local.storage.list(folder)
        assert all(storage.read(name) == local.storage.read(name) for name in storage.list(folder))


def test_damage_on_a_store_is_named_and_mended(storage: Storage, make_dataset: Callable[..., Dataset]) -> None:
    make_dataset(storage.url)
    tar = bytearray(storage.read("shards/made-train-00001.tar"))
    tar[600] ^= 1
    whole = storage.read("manifest.parquet")
    storage.replace("shards/made-train-00001.tar", bytes(tar))
    storage.remove("manifest.parquet")
    assert {damage.shard for damage in verify(storage.url)} == {"made-train-00001", "manifest.parquet"}
    repair(storage)
    assert storage.read("manifest.parquet") == whole


def test_a_range_past_the_end_of_an_object_is_a_record_cut_off_and_no_failing_store(
    storage: Storage, make_dataset: Callable[..., Dataset]
) -> None:
    dataset = make_dataset(storage.url)
    place = next(member for member in dataset.index(1).members(2) if member[0] == "jpg")
    tar = storage.read("shards/made-train-00001.tar")
    storage.replace("shards/made-train-00001.tar", tar[: place[1] + 10])
    with pytest.raises(DamagedRecordError, match="'made-00102': its 'jpg' member ends after 10 of"):
        dataset.record(1, 2)
    with pytest.raises(DamagedRecordError, match="'made-00103': its 'jpg' member ends after 0 of"):
        dataset.record(1, 3)
    storage.remove("shards/made-train-00001.tar")
    with pytest.raises(DamagedRecordError, match=r"'made-00100': .*made-train-00001\.tar is missing"):
        dataset.record(1, 0)


def test_an_upload_killed_half_way_shows_no_file_and_can_be_cleared_away(
    storage: Storage, write_unit: Callable[..., UnitReport], make_record: Callable[..., Record]
) -> None:
    script = (
        "import os, signal, sys\n"
        "from shards.storage import temporary_name\n"
        "from shards.stores import open_storage\n"
        "handle = open_storage(sys.argv[1]).open_write(temporary_name('shards/made-train-00000.tar'))\n"
        "for _ in range(10): handle.write(bytes(4 << 20))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, storage.url], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert killed.returncode == -9
    assert storage.list("shards") == storage.temporaries("shards") == []
    write_unit(storage, 0, [make_record(1)])
    assert storage.list("shards") == ["shards/made-train-00000.tar"]
    assert storage.abandon_uploads(older_than_s=0) == 1
    assert storage.abandon_uploads(older_than_s=0) == 0


def test_what_another_process_has_written_is_seen_at_once(storage: Storage) -> None:
    import fsspec

    system = fsspec.filesystem("s3", skip_instance_cache=True)
    assert storage.list("commits") == []
    assert not storage.exists(commit_path("u"))
    system.pipe_file(storage.path(commit_path("u")), b"{}")
    assert storage.exists(commit_path("u"))
    assert storage.list("commits") == [commit_path("u")]
    system.rm_file(storage.path(commit_path("u")))
    assert not storage.exists(commit_path("u"))


def test_a_store_that_two_conditional_writes_have_confused_is_asked_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    plain = s3fs.S3FileSystem.pipe_file

    def conflict(self: object, path: str, data: bytes, mode: str = "overwrite") -> object:
        if mode == "create":
            raise OSError(5, "ConditionalRequestConflict")
        return plain(self, path, data)

    monkeypatch.setattr(s3fs.S3FileSystem, "pipe_file", conflict)
    assert storage.create("f", b"first")
    assert not storage.create("f", b"second")
    assert storage.read("f") == b"first"


def test_a_bucket_that_is_not_there_is_one_sentence_and_is_not_made(s3: str) -> None:
    import fsspec

    with pytest.raises(DatasetError, match="cannot write to s3://no-such-bucket"):
        open_storage("s3://no-such-bucket/dataset").ensure_writable()
    assert not fsspec.filesystem("s3").exists("no-such-bucket")


def test_leftover_temporaries_of_a_store_are_swept_by_the_merge(
    storage: Storage, make_dataset: Callable[..., Dataset]
) -> None:
    make_dataset(storage.url)
    left = temporary_name("shards/made-train-00000.tar")
    with storage.open_write(left) as handle:
        handle.write(b"cut")
    assert storage.temporaries("shards") == [left]
    repair(storage)
    assert storage.temporaries("shards") == []
