from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.errors import DamagedRecordError, DatasetError
from shards.reader import Dataset
from shards.sweep import stretches, sweep

MakeDataset = Callable[..., Dataset]


def test_a_sweep_gives_the_members_of_the_tar_in_order(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset(units=2, records=5)
    with tarfile.open(tmp_path / "made" / "shards" / "made-train-00001.tar") as tar:
        stored = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    found = [(f"{key}.{name}", bytes(data)) for key, each in sweep(dataset, 1) for name, data in each.items()]
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
def test_a_flipped_bit_is_named(make_dataset: MakeDataset, tmp_path: Path, member: str) -> None:
    dataset = make_dataset()
    path = tmp_path / "made" / "shards" / "made-train-00001.tar"
    data = bytearray(path.read_bytes())
    data[next(place[1] for place in dataset.index(1).members(2) if place[0] == member)] ^= 1
    path.write_bytes(data)
    swept = sweep(dataset, 1)
    assert [next(swept)[0], next(swept)[0]] == ["made-00100", "made-00101"]
    with pytest.raises(DamagedRecordError, match=f"00001, record 'made-00102': its '{member}' member does not match"):
        next(swept)


def test_a_shard_that_is_cut_off_or_gone_is_named(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset()
    path = tmp_path / "made" / "shards" / "made-train-00001.tar"
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(DamagedRecordError, match=r"made-train-00001, record .* ends after \d+ of \d+ bytes"):
        list(sweep(dataset, 1))
    path.unlink()
    with pytest.raises(DatasetError, match="is missing"):
        list(sweep(dataset, 1))
