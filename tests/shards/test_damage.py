"""Every kind of damage that we could think of: each is found, and named with its shard and, where there is one, its key."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import DatasetError
from shards.index import encode_parquet
from shards.manifest import merge
from shards.reader import Dataset, open_dataset
from shards.records import Record
from shards.repair import repair
from shards.sidecar import write_sidecar
from shards.stores import open_storage
from shards.verify import verify
from shards.writer import UnitReport, decode_commit, encode_commit

NAMES = [f"made-train-0000{n}" for n in range(3)]
TARS = [f"shards/{name}.tar" for name in NAMES]
INDICES = [f"index/{name}.parquet" for name in NAMES]
COLUMN = "sidecars/concepts-1a2b3c4d"

Break = Callable[[Path, Dataset], object]


def flip(name: str, share: float) -> Break:
    """Flip one bit, so far into the file."""

    def breaks(folder: Path, dataset: Dataset) -> None:
        data = bytearray((folder / name).read_bytes())
        data[int(share * len(data))] ^= 0x04
        (folder / name).write_bytes(data)

    return breaks


def flip_member(extension: str, *, header: bool) -> Break:
    """Flip one bit inside a member of the third record of the second shard, or in the tar header before it."""

    def breaks(folder: Path, dataset: Dataset) -> None:
        place = next(offset for name, offset, _, _ in dataset.index(1).members(2) if name == extension)
        data = bytearray((folder / TARS[1]).read_bytes())
        data[place - 500 if header else place + 5] ^= 0x04
        (folder / TARS[1]).write_bytes(data)

    return breaks


def cut(name: str) -> Break:
    return lambda folder, dataset: (folder / name).write_bytes((folder / name).read_bytes()[:-700])


def lose(name: str) -> Break:
    return lambda folder, dataset: (folder / name).unlink()


def swap(first: str, second: str) -> Break:
    def breaks(folder: Path, dataset: Dataset) -> None:
        one, other = (folder / first).read_bytes(), (folder / second).read_bytes()
        (folder / first).write_bytes(other)
        (folder / second).write_bytes(one)

    return breaks


def put(source: str, target: str) -> Break:
    return lambda folder, dataset: shutil.copy(folder / source, folder / target)


def in_table(name: str, change: Callable[[pa.Table], pa.Table]) -> Break:
    """Write a Parquet file again with other rows."""

    def breaks(folder: Path, dataset: Dataset) -> None:
        (folder / name).write_bytes(encode_parquet(change(pq.read_table(folder / name))))

    return breaks


def in_commit(**changes: Any) -> Break:
    """Write a commit record as a writer with a fault would: wrong, and whole in itself."""

    def breaks(folder: Path, dataset: Dataset) -> None:
        path = folder / "commits/unit1.json"
        path.write_bytes(encode_commit(replace(decode_commit(path.read_bytes(), where="test"), **changes)))

    return breaks


def in_card(**changes: Any) -> Break:
    def breaks(folder: Path, dataset: Dataset) -> None:
        path = folder / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes, indent=2) + "\n")

    return breaks


def reorder_members(folder: Path, dataset: Dataset) -> None:
    """Exchange two records of equal size inside a tar, headers and all."""
    data = bytearray((folder / TARS[1]).read_bytes())
    starts = [dataset.index(1).members(row)[0][1] - 512 for row in range(3)]
    first, second = data[starts[0] : starts[1]], data[starts[1] : starts[2]]
    assert len(first) == len(second)
    data[starts[0] : starts[2]] = second + first
    (folder / TARS[1]).write_bytes(data)


def lose_member(folder: Path, dataset: Dataset) -> None:
    _, offset, size, _ = dataset.index(1).members(2)[0]
    data = (folder / TARS[1]).read_bytes()
    start, end = offset - 512, offset + size + (-size % 512)
    (folder / TARS[1]).write_bytes(data[:start] + data[end:])


def stale_index(folder: Path, dataset: Dataset) -> None:
    """The index of an earlier conversion: sound in itself, and not of this shard."""
    shutil.copy(folder / INDICES[0], folder / INDICES[1])


def of_another_dataset(name: str) -> Break:
    def breaks(folder: Path, dataset: Dataset) -> None:
        shutil.copy(folder.parent / "other" / name, folder / name)

    return breaks


def drop_row(table: pa.Table) -> pa.Table:
    return table.slice(1)


def repeat_row(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(0, 1)])


def rename_key(table: pa.Table) -> pa.Table:
    keys = table["key"].to_pylist()
    return table.set_column(0, table.schema.field(0), pa.array(["nobody", *keys[1:]], pa.string()))


DAMAGES: dict[str, tuple[Break, str, str]] = {
    # what: (how it is made, what is named, a part of the sentence)
    "a flipped bit in a tar header": (flip_member("json", header=True), NAMES[1], "although no member is damaged"),
    "a flipped bit in a picture": (flip_member("jpg", header=False), NAMES[1], "'made-00102': its 'jpg' member"),
    "a flipped bit in a record": (flip_member("json", header=False), NAMES[1], "'made-00102': its 'json' member"),
    "a flipped bit in the end of a tar": (flip(TARS[1], 0.999), NAMES[1], "does not match its checksum"),
    "a flipped bit in an index": (flip(INDICES[1], 0.3), NAMES[1], "does not match the checksum"),
    "a flipped bit in the manifest": (flip("manifest.parquet", 0.2), "manifest.parquet", ""),
    "a flipped bit in the manifest's footer": (flip("manifest.parquet", 0.9), "manifest.parquet", ""),
    "a flipped bit in a commit record": (flip("commits/unit1.json", 0.5), "commits/unit1.json", "no commit record"),
    "a flipped bit in the card": (flip("dataset.json", 0.04), "dataset.json", ""),
    "a flipped bit in the rejects": (flip("rejects.parquet", 0.3), "rejects.parquet", "does not list the rejects"),
    "a cut shard": (cut(TARS[1]), NAMES[1], "does not match its checksum"),
    "a cut index": (cut(INDICES[1]), NAMES[1], "does not match the checksum"),
    "an empty shard": (lambda folder, dataset: (folder / TARS[1]).write_bytes(b""), NAMES[1], "'made-00100'"),
    "a missing shard": (lose(TARS[1]), NAMES[1], "is missing"),
    "a missing index": (lose(INDICES[1]), NAMES[1], "is missing"),
    "a missing commit record": (lose("commits/unit1.json"), NAMES[1], "unit1.json is missing"),
    "a missing manifest": (lose("manifest.parquet"), "manifest.parquet", "is missing"),
    "missing rejects": (lose("rejects.parquet"), "rejects.parquet", "does not list the rejects"),
    "a missing card": (lose("dataset.json"), "dataset.json", "has no dataset.json"),
    "swapped shards": (swap(TARS[0], TARS[1]), NAMES[0], "does not match its checksum"),
    "swapped commit records": (swap("commits/unit0.json", "commits/unit1.json"), "commits/unit1.json", "of unit unit0"),
    "reordered records": (reorder_members, NAMES[1], "does not match its checksum"),
    "a missing member": (lose_member, NAMES[1], "'made-00102'"),
    "a duplicated shard": (
        put(TARS[1], "shards/made-train-00003.tar"),
        "shards/made-train-00003.tar",
        "vouches for it",
    ),
    "a foreign shard": (of_another_dataset(TARS[1]), NAMES[1], "does not match its checksum"),
    "a foreign index without a shard": (put(INDICES[1], "index/x-0.parquet"), "index/x-0.parquet", "vouches for it"),
    "a stale index": (stale_index, NAMES[1], "does not match the checksum"),
    "a missing row of the manifest": (in_table("manifest.parquet", drop_row), NAMES[0], "does not list it"),
    "a repeated row of the manifest": (in_table("manifest.parquet", repeat_row), NAMES[0], "lists it 2 times"),
    "a reordered manifest": (
        in_table("manifest.parquet", lambda table: table.take([1, 0, 2])),
        "manifest.parquet",
        "another order",
    ),
    "a commit record whose ledger does not close": (in_commit(raw_items=99), "commits/unit1.json", "99 raw items"),
    "a commit record of another config": (in_commit(config_digest="decaf"), "commits/unit1.json", "decaf"),
    "a commit record that forgot a licence": (in_commit(licences={}), "dataset.json", "sum up the commit records"),
    "a retry of what nobody rejected": (in_commit(retried=("ghost",)), "commits", "'ghost' was tried again"),
    "a card with another sum": (in_card(records=13), "dataset.json", "sum up the commit records"),
    "a card with another config": (in_card(config={}), "dataset.json", "own checksum"),
    "rejects with a row less": (in_table("rejects.parquet", drop_row), "rejects.parquet", "does not list the rejects"),
    "a missing part of a column": (lose(f"{COLUMN}/{NAMES[1]}.parquet"), COLUMN, "no part in this column"),
    "a missing card of a column": (lose(f"{COLUMN}/column.json"), f"{COLUMN}/column.json", "missing or damaged"),
    "a card of another column": (
        lambda folder, dataset: (folder / COLUMN / "column.json").write_text('{"column":"x","digest8":"1"}'),
        f"{COLUMN}/column.json",
        "it is about sidecars/x-1",
    ),
    "a cut part of a column": (cut(f"{COLUMN}/{NAMES[1]}.parquet"), f"{COLUMN}/{NAMES[1]}.parquet", "cannot be read"),
    "a flipped bit in a column": (flip(f"{COLUMN}/{NAMES[1]}.parquet", 0.1), f"{COLUMN}/{NAMES[1]}.parquet", ""),
    "a column of another dataset": (
        of_another_dataset(f"{COLUMN}/{NAMES[1]}.parquet"),
        f"{COLUMN}/{NAMES[1]}.parquet",
        "records that the shard does not have",
    ),
    "a part of a column for no shard": (
        put(f"{COLUMN}/{NAMES[1]}.parquet", f"{COLUMN}/other-00001.parquet"),
        f"{COLUMN}/other-00001.parquet",
        "no such shard",
    ),
    "a key that only the column knows": (
        in_table(f"{COLUMN}/{NAMES[1]}.parquet", rename_key),
        f"{COLUMN}/{NAMES[1]}.parquet",
        "'nobody'",
    ),
    "a record that the column lacks": (
        in_table(f"{COLUMN}/{NAMES[1]}.parquet", drop_row),
        f"{COLUMN}/{NAMES[1]}.parquet",
        "'made-00100'",
    ),
    "a record that the column has twice": (
        in_table(f"{COLUMN}/{NAMES[1]}.parquet", repeat_row),
        f"{COLUMN}/{NAMES[1]}.parquet",
        "two rows",
    ),
}

MENDED_WITHOUT_RAW_DATA = [
    "a flipped bit in an index",
    "a cut index",
    "a missing index",
    "a stale index",
    "a flipped bit in the manifest",
    "a flipped bit in the manifest's footer",
    "a missing manifest",
    "a missing row of the manifest",
    "a repeated row of the manifest",
    "a reordered manifest",
    "a flipped bit in the rejects",
    "missing rejects",
    "rejects with a row less",
    "a flipped bit in a commit record",
    "a missing commit record",
    "swapped commit records",
    "a commit record whose ledger does not close",
    "a duplicated shard",
    "a foreign index without a shard",
]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets of one shape and other content, `made` and `other`, each with a column; made once, copied for each test."""
    from shards.records import Reject
    from tests.shards.conftest import CONFIG, CONFIG_DIGEST, captioned, write_one

    root = tmp_path_factory.mktemp("sound")
    for shift, name in enumerate(("made", "other")):
        storage = open_storage(root / name)
        for unit in range(3):
            rejects = [Reject(id=f"r{unit}", reason="missing_media", detail="gone", annotations=3)] if unit else []
            numbers = [unit * 100 + 50 * shift + place for place in range(4)]
            write_one(storage, unit, [captioned(number) for number in numbers], rejects)
        units = [f"unit{unit}" for unit in range(3)]
        merge(storage, name="made", split="train", config=CONFIG, config_digest=CONFIG_DIGEST, expected_units=units)
        dataset = open_dataset(root / name)
        for number, entry in enumerate(dataset.manifest):
            keys = dataset.index(number).keys
            values = pa.table({"score": [float(len(key)) for key in keys]})
            write_sidecar(
                storage, column="concepts", digest8="1a2b3c4d", shard=entry.name, keys=keys, values=values, card={}
            )
    return root


@pytest.fixture
def folder(datasets: Path, tmp_path: Path) -> Path:
    shutil.copytree(datasets, tmp_path / "copy")
    return tmp_path / "copy" / "made"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_an_undamaged_dataset_is_found_sound(folder: Path) -> None:
    assert verify(folder) == []


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_found_and_named(folder: Path, kind: str) -> None:
    breaks, named, says = DAMAGES[kind]
    before = files(folder)
    breaks(folder, open_dataset(folder))
    assert files(folder) != before
    found = [str(damage) for damage in verify(folder) if damage.shard == named]
    assert found, [str(damage) for damage in verify(folder)]
    assert any(says in sentence for sentence in found), found


@pytest.mark.parametrize("name", ["manifest.parquet", "rejects.parquet", "dataset.json", "commits/unit1.json"])
def test_no_flipped_bit_of_a_small_file_goes_unseen(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    for offset in range(0, len(whole), max(1, len(whole) // 40)):
        flip(name, offset / len(whole))(folder, open_dataset(folder))
        assert verify(folder) != [], offset
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize("kind", MENDED_WITHOUT_RAW_DATA)
def test_what_the_rest_of_the_dataset_can_tell_is_restored_byte_for_byte(folder: Path, kind: str) -> None:
    before = files(folder)
    DAMAGES[kind][0](folder, open_dataset(folder))
    repair(open_storage(folder))
    assert files(folder) == before


def test_a_key_in_two_shards_is_named_with_both(
    tmp_path: Path, make_record: Callable[..., Record], write_unit: Callable[..., UnitReport]
) -> None:
    storage = open_storage(tmp_path)
    write_unit(storage, 0, [make_record(1), make_record(2)])
    write_unit(storage, 1, [make_record(2), make_record(3)])
    found = [damage for damage in verify(tmp_path) if damage.key == "made-00002"]
    assert [damage.shard for damage in found] == [NAMES[1]]
    assert NAMES[0] in found[0].what


def test_repair_changes_nothing_where_it_cannot_be_sure(folder: Path) -> None:
    for commit in ("unit0", "unit1"):
        (folder / "commits" / f"{commit}.json").unlink()
    (folder / "manifest.parquet").unlink()
    before = files(folder)
    with pytest.raises(DatasetError, match="cannot be restored"):
        repair(open_storage(folder))
    in_card(config={}, name="x")(folder, open_dataset(folder) if (folder / "manifest.parquet").exists() else None)  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match="its config cannot be trusted"):
        repair(open_storage(folder))
    assert {name: data for name, data in files(folder).items() if name != "dataset.json"} == {
        name: data for name, data in before.items() if name != "dataset.json"
    }
