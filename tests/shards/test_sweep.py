from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.index import tar_path
from shards.reader import Dataset
from shards.sweep import stretches, sweep

MakeDataset = Callable[..., Dataset]


def swept(dataset: Dataset) -> list[dict[str, memoryview] | None]:
    """The first shard."""
    index = dataset.index(0)
    return list(sweep(dataset.storage.path(tar_path(index.name)), index))


def test_a_sweep_gives_the_members_of_the_tar_in_order(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset(units=1, records=5)
    with tarfile.open(tmp_path / "made" / "shards" / "made-train-00000.tar") as tar:
        stored = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    named = zip(dataset.index(0).keys, swept(dataset), strict=True)
    found = [(f"{key}.{name}", bytes(data)) for key, each in named for name, data in (each or {}).items()]
    assert found == stored


@pytest.mark.parametrize("most", [1, 3000, 10**9])
def test_stretches_cover_every_row_once_whatever_their_length(make_dataset: MakeDataset, most: int) -> None:
    index = make_dataset(units=1, records=9).index(0)
    cut = list(stretches(index, most))
    assert [row for rows, _, _ in cut for row in rows] == list(range(9))
    assert len(cut) == (1 if most == 10**9 else 9) or most == 3000
    for rows, start, end in cut:
        places = [place for row in rows for place in index.members(row)]
        assert (start, end) == (places[0][1], places[-1][1] + places[-1][2])


@pytest.mark.parametrize("member", ["jpg", "json", "txt"])
def test_a_record_with_a_flipped_bit_is_left_out_and_its_neighbours_are_not(
    make_dataset: MakeDataset, tmp_path: Path, member: str
) -> None:
    dataset = make_dataset(units=1, records=5)
    path = tmp_path / "made" / "shards" / "made-train-00000.tar"
    sound = [{name: bytes(data) for name, data in (each or {}).items()} for each in swept(dataset)]
    data = bytearray(path.read_bytes())
    data[next(place[1] for place in dataset.index(0).members(2) if place[0] == member)] ^= 1
    path.write_bytes(data)
    assert swept(dataset) == [*sound[:2], None, *sound[3:]]


def test_of_a_shard_that_is_cut_off_or_gone_the_lost_records_are_left_out(
    make_dataset: MakeDataset, tmp_path: Path
) -> None:
    dataset = make_dataset(units=1, records=5)
    path = tmp_path / "made" / "shards" / "made-train-00000.tar"
    path.write_bytes(path.read_bytes()[: dataset.index(0).members(3)[-1][1]])
    assert [each is None for each in swept(dataset)] == [False, False, False, True, True]
    path.unlink()
    assert swept(dataset) == [None] * 5
