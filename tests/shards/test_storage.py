from __future__ import annotations

import errno
import os
import pickle
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.errors import DatasetError
from shards.storage import Storage, is_temporary, temporary_name
from shards.stores import open_storage


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    url = str(tmp_path / "place") if request.param == "local" else f"memory://test-{uuid.uuid4().hex}"
    opened = open_storage(url)
    yield opened
    if not opened.is_local:
        import fsspec

        fsspec.filesystem("memory").rm(url, recursive=True)


def _put(storage: Storage, data: bytes) -> str:
    temporary = temporary_name("deep/down/file")
    with storage.open_write(temporary) as handle:
        handle.write(data)
    return temporary


def test_the_first_to_create_a_file_wins_and_the_others_change_nothing(storage: Storage) -> None:
    assert storage.create("a/b.json", b"first")
    assert not storage.create("a/b.json", b"second")
    assert storage.read("a/b.json") == b"first"
    assert storage.list("a") == ["a/b.json"]
    assert storage.temporaries("a") == []


def test_of_many_racing_threads_exactly_one_creates(storage: Storage) -> None:
    start = threading.Barrier(8)
    wins: list[int] = []

    def race(number: int) -> None:
        start.wait()
        if storage.create("c/x", b"%d" % number):
            wins.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if storage.is_local:  # fsspec's memory file system looks before it writes, so there two threads may both win
        assert len(wins) == 1
    assert storage.read("c/x") in {b"%d" % number for number in wins}


def test_a_written_file_is_invisible_until_it_is_published(storage: Storage) -> None:
    temporary = _put(storage, b"data")
    assert storage.list("deep/down") == []
    assert storage.temporaries("deep/down") == [temporary]
    assert storage.publish(temporary, "deep/down/file")
    assert storage.list("deep/down") == ["deep/down/file"]
    assert storage.temporaries("deep/down") == []
    assert storage.folders("deep") == ["deep/down"]


def test_publishing_over_a_file_keeps_it_unless_told_to_replace(storage: Storage) -> None:
    storage.publish(_put(storage, b"old"), "f")
    late = _put(storage, b"new")
    assert not storage.publish(late, "f")
    assert storage.read("f") == b"old"
    assert storage.publish(late, "f", existing="replace")
    assert storage.read("f") == b"new"


def test_publishing_a_swept_temporary_says_so(storage: Storage) -> None:
    temporary = _put(storage, b"x")
    storage.remove(temporary)
    storage.remove(temporary)  # removing twice is no error
    with pytest.raises(FileNotFoundError):
        storage.publish(temporary, "f")
    with pytest.raises(FileNotFoundError):
        storage.publish(temporary, "f", existing="replace")


def test_ranges_sizes_and_checksums_are_those_of_the_bytes(storage: Storage) -> None:
    import xxhash

    data = os.urandom(5000)
    storage.replace("f", b"before")
    storage.replace("f", data)
    assert storage.read_range("f", 100, 50) == data[100:150]
    assert storage.read_range("f", 4990, 50) == data[4990:]
    assert storage.size("f") == 5000
    assert storage.checksum("f") == xxhash.xxh3_64_hexdigest(data)
    assert storage.exists("f")
    assert not storage.exists("g")
    with pytest.raises(FileNotFoundError):
        storage.read("g")


def test_a_storage_travels_to_another_process_as_its_address(storage: Storage) -> None:
    storage.create("f", b"1")
    copy = pickle.loads(pickle.dumps(storage))
    assert copy == storage
    assert copy.read("f") == b"1"


def test_a_file_system_without_hard_links_still_keeps_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    storage = open_storage(tmp_path)
    assert storage.create("f", b"first")
    assert not storage.create("f", b"second")
    assert storage.read("f") == b"first"
    assert storage.temporaries("") == []


def test_a_place_that_takes_no_files_is_found_out_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DatasetError, match="choose another `output`"):
        open_storage(tmp_path / "file" / "dataset").ensure_writable()
    open_storage(tmp_path / "new" / "dataset").ensure_writable()
    assert open_storage(tmp_path / "new" / "dataset").temporaries("") == []


def test_whatever_a_store_raises_when_it_takes_nothing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    class NoKeysError(Exception):  # as boto's, which is no OSError
        pass

    def refuse(*_: object, **__: object) -> None:
        raise NoKeysError("unable to locate credentials")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "_open", refuse)
    with pytest.raises(DatasetError, match=r"cannot write to memory://x \(unable to locate credentials\)"):
        open_storage("memory://x").ensure_writable()


def test_an_unknown_protocol_is_explained() -> None:
    with pytest.raises(DatasetError, match="no protocol 'nowhere'"):
        open_storage("nowhere://bucket/x")


def test_temporary_names_never_repeat_and_stay_in_their_folder() -> None:
    first, second = temporary_name("a/b.tar"), temporary_name("a/b.tar")
    assert first != second
    assert first.startswith("a/.")
    assert is_temporary(first)
    assert not is_temporary("a/b.tar")


def test_a_small_file_is_written_although_its_temporary_is_swept_by_another_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(tmp_path)
    publish, sweeps = type(storage).publish, iter([True, True, False])

    def swept(self: Storage, temporary: str, name: str, *, existing: str = "keep") -> bool:
        if next(sweeps):
            self.remove(temporary)
        return publish(self, temporary, name, existing=existing)  # type: ignore[arg-type]

    monkeypatch.setattr(type(storage), "publish", swept)
    storage.replace("f", b"1")
    assert storage.read("f") == b"1"
    assert storage.temporaries("") == []
