from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shards.errors import DatasetError
from shards.records import Record, Reject
from shards.stores import open_storage
from shards.writer import ShardWriter, UnitReport, commit_path, committed_units, decode_commit, encode_commit

MakeRecord = Callable[..., Record]
WriteUnit = Callable[..., UnitReport]
REPOSITORY = Path(__file__).resolve().parents[2]


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_attempts_of_a_unit_write_the_same_bytes(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    for place in ("a", "b"):
        write_unit(open_storage(tmp_path / place), 7, [make_record(n) for n in range(5)])
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
    assert set(_files(tmp_path / "a")) == {
        "commits/unit7.json",
        "index/made-train-00007.parquet",
        "shards/made-train-00007.tar",
    }


def test_a_second_attempt_of_a_committed_unit_leaves_quietly(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    storage = open_storage(tmp_path)
    first = write_unit(storage, 0, [make_record(1)])
    before = _files(tmp_path)
    second = write_unit(storage, 0, [make_record(1)])
    assert (first.committed, second.committed) == (True, False)
    assert first == second
    assert _files(tmp_path) == before


def test_a_second_attempt_with_other_bytes_is_refused_and_changes_nothing(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    storage = open_storage(tmp_path)
    write_unit(storage, 0, [make_record(1)])
    before = _files(tmp_path)
    with pytest.raises(DatasetError, match="committed before with other bytes"):
        write_unit(storage, 0, [make_record(2)])
    assert _files(tmp_path) == before


def test_of_racing_workers_one_commits_each_unit_and_all_see_the_same_bytes(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    storage = open_storage(tmp_path / "raced")
    start = threading.Barrier(6)

    def work(worker: int) -> list[UnitReport]:
        start.wait()
        return [
            write_unit(storage, unit, [make_record(unit * 10 + n, size=40_000) for n in range(4)]) for unit in range(5)
        ]

    with ThreadPoolExecutor(6) as pool:
        by_worker = list(pool.map(work, range(6)))
    assert all(reports == by_worker[0] for reports in by_worker)
    assert [sum(reports[unit].committed for reports in by_worker) for unit in range(5)] == [1] * 5
    alone = open_storage(tmp_path / "alone")
    for unit in range(5):
        write_unit(alone, unit, [make_record(unit * 10 + n, size=40_000) for n in range(4)])
    assert _files(tmp_path / "raced") == _files(tmp_path / "alone")


def test_leaving_without_a_commit_leaves_nothing(tmp_path: Path, make_record: MakeRecord) -> None:
    storage = open_storage(tmp_path)
    with (
        pytest.raises(ZeroDivisionError),
        ShardWriter(storage, dataset="d", split="s", unit="u", unit_index=0, config_digest="c") as writer,
    ):
        writer.add(make_record(1))
        _ = 1 // 0
    assert _files(tmp_path) == {}


def test_a_published_shard_that_was_never_committed_gives_way(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    write_unit(open_storage(tmp_path / "clean"), 0, [make_record(1)])
    for name in ("shards/made-train-00000.tar", "index/made-train-00000.parquet"):
        path = tmp_path / "dirty" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"left by an attempt of another day")
    write_unit(open_storage(tmp_path / "dirty"), 0, [make_record(1)])
    assert _files(tmp_path / "dirty") == _files(tmp_path / "clean")


def test_a_shard_committed_by_another_unit_is_never_overwritten(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    storage = open_storage(tmp_path)
    write_unit(storage, 0, [make_record(1)])
    before = _files(tmp_path)
    other = ShardWriter(storage, dataset="made", split="train", unit="other", unit_index=0, config_digest="c")
    with pytest.raises(DatasetError, match="committed by unit unit0"), other:
        other.add(make_record(2))
        other.commit(raw_items=1, raw_annotations=2)
    assert _files(tmp_path) == before


def test_an_attempt_whose_temporaries_were_swept_finds_the_winner(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(tmp_path)
    late = ShardWriter(storage, dataset="made", split="train", unit="unit0", unit_index=0, config_digest="c0ffee")
    late.add(make_record(1))
    for temporary in storage.temporaries("shards"):
        storage.remove(temporary)
    # The winner commits between the late attempt's first look and its publishing.
    reads: list[str] = []
    honest = type(storage).read

    def read(self: object, name: str) -> bytes:
        reads.append(name)
        if len(reads) == 1:
            raise FileNotFoundError(name)
        return honest(storage, name)

    write_unit(storage, 0, [make_record(1)])
    monkeypatch.setattr(type(storage), "read", read)
    assert not late.commit(raw_items=1, raw_annotations=2).committed


@pytest.mark.parametrize(
    ("raw_items", "raw_annotations", "words"),
    [(3, 9, "3 raw items went in"), (1, 9, "1 raw items"), (2, 8, "8 raw annotations went in"), (2, 10, "10 raw")],
)
def test_a_ledger_that_does_not_close_stops_the_unit(
    tmp_path: Path, make_record: MakeRecord, raw_items: int, raw_annotations: int, words: str
) -> None:
    writer = ShardWriter(open_storage(tmp_path), dataset="d", split="s", unit="u", unit_index=0, config_digest="c")
    with pytest.raises(DatasetError, match=words), writer:
        writer.add(make_record(1, captions=3))
        writer.reject(Reject(id="a", reason="empty_text", detail="", level="annotation"))
        writer.reject(Reject(id="b", reason="not_media", detail="", annotations=5))
        writer.commit(raw_items=raw_items, raw_annotations=raw_annotations)
    assert _files(tmp_path) == {}


def test_a_unit_of_rejects_alone_is_committed_without_a_shard(tmp_path: Path, write_unit: WriteUnit) -> None:
    storage = open_storage(tmp_path)
    report = write_unit(
        storage, 3, [], [Reject(id="name\udcff.jpg", reason="broken_utf8", detail="\udc80", annotations=1)]
    )
    assert (report.shard, report.records, report.bytes) == (None, 0, 0)
    assert report.rejects[0].id == "name\\udcff.jpg"
    assert committed_units(storage) == {"unit3": report}


def test_a_key_that_occurs_twice_is_refused(tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit) -> None:
    with pytest.raises(DatasetError, match="'made-00001' occurs twice"):
        write_unit(open_storage(tmp_path), 0, [make_record(1), make_record(1)])


def test_a_commit_record_comes_back_as_it_was_and_damage_is_named(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    report = write_unit(open_storage(tmp_path), 0, [make_record(1)], [Reject(id="a", reason="filtered", detail="é")])
    data = encode_commit(report)
    assert decode_commit(data, where="here") == report
    for broken in (
        b"",
        b"[]",
        data[:-5],
        data.replace(b'"shard":', b'"shape":'),
        data.replace(b'"schema":1', b'"schema":9'),
    ):
        with pytest.raises(DatasetError, match="here is no commit record"):
            decode_commit(broken, where="here")


def test_a_folder_of_another_config_is_refused(tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit) -> None:
    storage = open_storage(tmp_path)
    write_unit(storage, 0, [make_record(1)])
    assert set(committed_units(storage, "c0ffee")) == {"unit0"}
    with pytest.raises(DatasetError, match="written by another config"):
        committed_units(storage, "decaf")


def test_a_storage_that_fails_is_named_in_one_sentence(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    (tmp_path / "shards").write_bytes(b"a file where a folder should be")
    with pytest.raises(DatasetError, match="cannot write made-train-00000"):
        write_unit(open_storage(tmp_path), 0, [make_record(1)])


def test_webdataset_and_tarfile_read_our_shards(tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit) -> None:
    records = [make_record(n) for n in range(4)]
    write_unit(open_storage(tmp_path), 0, records)
    path = tmp_path / "shards" / "made-train-00000.tar"
    with tarfile.open(path) as archive:
        assert archive.getnames() == [f"{record.key}.{name}" for record in records for name in ("jpg", "json", "txt")]
    webdataset = pytest.importorskip("webdataset", reason="the extra ostraka[webdataset] is not installed")
    found = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [(item["__key__"], item["jpg"]) for item in found] == [
        (record.key, record.payload["jpg"]) for record in records
    ]


def test_the_shard_ends_as_tar_itself_would_end_it(
    tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit
) -> None:
    report = write_unit(open_storage(tmp_path), 0, [make_record(1)])
    data = (tmp_path / "shards" / "made-train-00000.tar").read_bytes()
    assert len(data) == report.bytes
    assert len(data) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert len(archive.getmembers()) == 3


def test_reports_say_nothing_about_the_attempt(tmp_path: Path, make_record: MakeRecord, write_unit: WriteUnit) -> None:
    storage = open_storage(tmp_path)
    report = write_unit(storage, 0, [make_record(1)])
    assert storage.read(commit_path("unit0")) == encode_commit(dataclasses.replace(report, committed=False))


_KILLED_WRITERS = """
import os, random, signal, sys, time
from pathlib import Path
from shards.manifest import merge
from shards.records import Caption, Media, Origin, Record
from shards.stores import open_storage
from shards.writer import ShardWriter, committed_units

UNITS = 2

def write(folder):
    storage = open_storage(folder)
    for unit in range(UNITS):
        with ShardWriter(storage, dataset="d", split="s", unit=f"u{unit}", unit_index=unit, config_digest="c") as writer:
            for number in range(unit * 10, unit * 10 + 8):
                writer.add(Record(
                    key=f"k{number}", origin=Origin(dataset="d", split="s", id=str(number)),
                    media=(Media(member="jpg", kind="image"),), annotations=(Caption(text=str(number)),),
                    payload={"jpg": bytes([number]) * 100_000},
                ))
            writer.commit(raw_items=8, raw_annotations=8)
    merge(storage, name="d", split="s", config={}, config_digest="c", expected_units=[f"u{unit}" for unit in range(UNITS)])

def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}

def check(folder):
    storage = open_storage(folder)
    for report in committed_units(storage).values():
        assert storage.checksum(f"shards/{report.shard}.tar") == report.xxh3, report
        assert storage.checksum(f"index/{report.shard}.parquet") == report.index_xxh3, report

def run_child(work):
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return child

def die_at(folder, fatal):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event in ("open", "os.link", "os.rename", "os.remove", "os.mkdir") and folder in str(arguments[0]):
            seen += 1
            if seen == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    write(folder)

root, rng = sys.argv[1], random.Random(int(sys.argv[2]))
started = time.monotonic()
write(f"{root}/whole")
took = time.monotonic() - started
whole = files(f"{root}/whole")
deaths = 0
for attempt in range(200):  # every file operation in turn, then random moments between them
    folder = f"{root}/{attempt}"
    child = run_child(lambda: die_at(folder, attempt + 1))
    status = os.waitpid(child, 0)[1]
    check(folder)
    if os.WIFSIGNALED(status):
        deaths += 1
        write(folder)
        assert files(folder) == whole, (attempt, sorted(set(files(folder)) ^ set(whole)))
    else:
        assert status == 0
        break
for attempt in range(6):
    folder = f"{root}/random{attempt}"
    child = run_child(lambda: write(folder))
    time.sleep(rng.uniform(0, took))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    check(folder)
    write(folder)
    assert files(folder) == whole, (attempt, sorted(set(files(folder)) ^ set(whole)))
print(deaths)
"""


def test_a_writer_killed_at_any_moment_leaves_nothing_or_a_whole_shard_and_the_next_run_heals_it(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED_WRITERS, str(tmp_path), "7"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40  # died at that many different file operations
