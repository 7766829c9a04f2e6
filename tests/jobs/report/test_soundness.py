"""What verify says: asked anew for every page, named by shard and record, and left out only openly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.report.soundness import look_for_damage, soundness_section
from shards.foreign import ForeignTar
from shards.reader import Dataset
from tests.jobs.report.modalities import kinds, write_kind


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write_kind(tmp_path / "sounds", kinds()["sounds"])


def test_a_sound_dataset_is_said_to_be_sound_and_a_flipped_byte_is_named(dataset: Dataset) -> None:
    finding = look_for_damage(dataset, wanted=None, most_mib=256)
    assert finding.damages == ()
    assert "nothing is damaged" in soundness_section([finding])
    shard = next((Path(dataset.path) / "shards").iterdir())
    place = next(offset for name, offset, _, _ in dataset.index(0).members(1) if name == "wav")
    data = bytearray(shard.read_bytes())
    data[place + 100] ^= 1
    shard.write_bytes(data)
    section = soundness_section([look_for_damage(dataset, wanted=None, most_mib=256)])
    assert "sounds-test-001" in section
    assert "nothing is damaged" not in section


@pytest.mark.parametrize(
    ("wanted", "most_mib", "looks"), [(None, 0.0, False), (True, 0.0, True), (False, 256.0, False)]
)
def test_a_dataset_that_was_not_read_is_never_called_sound(
    dataset: Dataset, wanted: bool | None, most_mib: float, looks: bool
) -> None:
    finding = look_for_damage(dataset, wanted=wanted, most_mib=most_mib)
    assert (finding.damages is not None) == looks
    assert ("not looked at" in soundness_section([finding])) == (not looks)


def test_the_tars_of_others_count_as_what_has_to_be_read(dataset: Dataset) -> None:
    foreign = ForeignTar(address="/nowhere/big.tar", bytes=1 << 40, stamp="", layout="0")
    dataset.manifest = tuple(replace(entry, foreign=foreign) for entry in dataset.manifest)
    finding = look_for_damage(dataset, wanted=None, most_mib=256)
    assert finding.damages is None
    assert finding.bytes > 1 << 40
