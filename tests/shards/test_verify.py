from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.verbs import verify as verb
from shards.errors import DatasetError
from shards.index import IndexRow, Member, encode_index
from shards.reader import Dataset
from shards.repair import repair
from shards.storage import temporary_name
from shards.stores import open_storage
from shards.verify import Damage, verify
from shards.writer import decode_commit, encode_commit

MakeDataset = Callable[..., Dataset]
TAR = "shards/made-train-00001.tar"
INDEX = "index/made-train-00001.parquet"


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> Dataset:
    return make_dataset()


@pytest.fixture
def folder(dataset: Dataset) -> Path:
    return Path(dataset.path)


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def _recommit(folder: Path, unit: str = "unit1", **changes: Any) -> None:
    """Write a commit record as a writer with a fault would: wrong, and whole in itself."""
    path = folder / "commits" / f"{unit}.json"
    path.write_bytes(encode_commit(replace(decode_commit(path.read_bytes(), where="test"), **changes)))


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _named(damages: list[Damage]) -> set[tuple[str, str | None]]:
    return {(damage.shard, damage.key) for damage in damages}


def test_a_sound_dataset_has_no_damage(folder: Path) -> None:
    seen: list[str] = []
    assert verify(folder, on_shard=lambda entry: seen.append(entry.name)) == []
    assert seen == [f"made-train-0000{n}" for n in range(3)]


def test_a_flipped_bit_anywhere_in_a_shard_is_found(folder: Path) -> None:
    path = folder / TAR
    for offset in range(0, path.stat().st_size, 997):
        _flip(path, offset)
        assert "made-train-00001" in {damage.shard for damage in verify(folder)}, offset
        _flip(path, offset)
    assert verify(folder) == []


def test_a_damaged_member_is_named_with_its_record(folder: Path, dataset: Dataset) -> None:
    _, offset, _, _ = dataset.index(1).members(2)[0]
    _flip(folder / TAR, offset + 3)
    damages = verify(folder)
    assert _named(damages) == {("made-train-00001", "made-00102"), ("made-train-00001", None)}
    assert "'jpg' member does not match" in str(damages[0])
    assert "remove commits/unit1.json" in str(damages[1])


def test_damage_between_the_members_is_told_apart(folder: Path, dataset: Dataset) -> None:
    _, offset, _, _ = dataset.index(1).members(2)[0]
    _flip(folder / TAR, offset - 300)
    (damage,) = verify(folder)
    assert "although no member is damaged" in damage.what


@pytest.mark.parametrize(
    "name", [TAR, INDEX, "commits/unit1.json", "manifest.parquet", "rejects.parquet", "dataset.json"]
)
def test_every_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert any(Path(name).stem.removesuffix(".tar") in damage.shard or name in damage.what for damage in verify(folder))


@pytest.mark.parametrize(
    "name", [TAR, INDEX, "commits/unit1.json", "manifest.parquet", "rejects.parquet", "dataset.json"]
)
def test_every_file_cut_short_is_named(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert verify(folder) != []


def test_an_index_that_points_elsewhere_is_found_even_if_its_checksum_fits(folder: Path, dataset: Dataset) -> None:
    # A writer with a fault would commit a wrong index with the right checksum; only looking into the tar shows it.
    rows = []
    for row, key in enumerate(dataset.index(1).keys):
        members = [Member(extension=e, offset=o, size=s, xxh3=x) for e, o, s, x in dataset.index(1).members(row)]
        rows.append(
            IndexRow(
                key=key,
                members=tuple(members[:1] if row == 2 else members),
                annotations=7 if row == 3 else 2,
                width=1,
                height=1,
                frames=None,
                duration_s=None,
                text_length=1,
            )
        )
    dataset.storage.replace(INDEX, encode_index(rows))
    wrong = dataset.storage.checksum(INDEX)
    _recommit(folder, index_xxh3=wrong)
    damages = verify(folder)
    whats = "; ".join(map(str, damages))
    assert "record 'made-00102': record 'made-00102' has no '.json' member" in whats
    assert "record 'made-00103': it has 2 annotations, and the index says 7" in whats
    assert "the tar holds 2 members that the index lacks" in whats
    assert "manifest and commit record disagree" in whats


def test_a_lost_manifest_is_repaired_byte_for_byte_and_leftovers_go(folder: Path) -> None:
    before = _files(folder)
    (folder / "manifest.parquet").unlink()
    (folder / "rejects.parquet").write_bytes(b"cut")
    (folder / "sidecars" / "concepts-1a2b3c4d").mkdir(parents=True)
    for name in ("shards/x.tar", "sidecars/concepts-1a2b3c4d/x.parquet"):
        (folder / temporary_name(name)).write_bytes(b"left by a killed attempt")
    repair(open_storage(folder))
    assert _files(folder) == before
    assert verify(folder) == []


def test_leftovers_of_killed_attempts_are_no_damage(folder: Path) -> None:
    (folder / temporary_name("shards/x.tar")).write_bytes(b"cut")
    assert verify(folder) == []


def test_a_folder_that_is_no_dataset_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is no dataset"):
        verify(tmp_path / "nothing")


def test_the_verb_exits_with_one_and_names_the_damage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.run(verb.Config(dataset=str(folder)), dry_run=False) == 0
    assert "sound, 3 shards, 12 records, 24 annotations" in capsys.readouterr().out
    (folder / "manifest.parquet").unlink()
    assert verb.run(verb.Config(dataset=str(folder)), dry_run=False) == 1
    assert "manifest.parquet is missing" in capsys.readouterr().out
    assert verb.run(verb.Config(dataset=str(folder), repair=True), dry_run=False) == 0


def test_a_dry_run_says_how_much_it_would_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb.run(verb.Config(dataset=str(folder)), dry_run=True) == 0
    assert "3 shards with 12 records" in capsys.readouterr().out
