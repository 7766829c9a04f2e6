"""Parts of an evaluation on disk: found by the same evaluation only, whole or not at all, and gone when it is done."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from shards.errors import OstrakaError
from trainers.score_parts import ScoreParts, drop_parts

FEATURES = torch.rand(3, 2, generator=torch.Generator().manual_seed(0))
SCORES = torch.tensor([0.5, -1.25, 3.0])


def _parts(output: Path | None, features: torch.Tensor = FEATURES, how: bytes = b"as usual") -> ScoreParts:
    return ScoreParts(output, made_from=(features, how))


def test_the_same_evaluation_finds_its_parts_bit_for_bit_and_another_does_not(tmp_path: Path) -> None:
    _parts(tmp_path).add(range(4, 8), SCORES)
    found = _parts(tmp_path).find(range(4, 8), 3)
    assert found is not None
    assert torch.equal(found, SCORES)
    assert _parts(tmp_path).find(range(0, 4), 3) is None
    nudged = torch.nextafter(FEATURES, torch.ones(()))
    assert _parts(tmp_path, nudged).find(range(4, 8), 3) is None
    assert _parts(tmp_path, how=b"otherwise").find(range(4, 8), 3) is None
    assert _parts(tmp_path, FEATURES.bfloat16()).find(range(4, 8), 3) is None


@pytest.mark.parametrize("left", [0, 7, -4])
def test_a_part_that_is_not_whole_is_passed_over(left: int, tmp_path: Path) -> None:
    parts = _parts(tmp_path)
    parts.add(range(4, 8), SCORES)
    (file,) = tmp_path.glob(".match-*/*.npy")
    file.write_bytes(file.read_bytes()[:left])
    assert parts.find(range(4, 8), 3) is None
    assert parts.find(range(4, 8), 2) is None


def test_parts_are_dropped_whatever_they_were_made_from_and_nothing_else_is(tmp_path: Path) -> None:
    for how in (b"one way", b"another"):
        _parts(tmp_path, how=how).add(range(0, 4), SCORES)
    (tmp_path / "scores.json").touch()
    drop_parts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]
    drop_parts(tmp_path / "nowhere")


def test_without_a_folder_nothing_is_kept() -> None:
    parts = _parts(None)
    parts.add(range(0, 4), SCORES)
    assert parts.find(range(0, 4), 3) is None


def test_a_part_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OstrakaError, match=r"npy: cannot be written \(Not a directory\); free some room"):
        _parts(tmp_path / "file").add(range(0, 4), SCORES)
