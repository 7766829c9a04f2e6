"""States that wait to be matched: whole batches while there is room, texts without padding, in memory or on disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shards.errors import OstrakaError
from trainers.states import KeptStates, PackedTexts, rows_in_file

LENGTHS = torch.tensor([3, 1, 4, 2, 4, 1])
CHOSEN = torch.tensor([True, True, False, True, True, False])
WIDTH = 2


def _states() -> Tensor:
    """(texts, T, Dt), every number another; what lies beyond a text's length is not a number."""
    states = torch.arange(6.0 * 5 * WIDTH).view(6, 5, WIDTH)
    return states.masked_fill(torch.arange(5)[None, :, None] >= LENGTHS[:, None, None], torch.nan)


def _packed(rows: Tensor) -> PackedTexts:
    packed = PackedTexts(LENGTHS, CHOSEN, rows)
    for texts in (range(0, 4), range(4, 6)):
        packed.put(texts, _states()[texts.start : texts.stop])
    return packed


def _tokens() -> int:
    return int(LENGTHS[CHOSEN].sum())


@pytest.mark.parametrize("place", ["memory", "file"])
def test_chosen_texts_come_back_in_any_company_with_numbers_for_padding(place: str, tmp_path: Path) -> None:
    rows = torch.empty(_tokens(), WIDTH)
    packed = _packed(rows if place == "memory" else rows_in_file(_tokens(), rows, folder=tmp_path))
    for texts in ([0, 1, 3, 4], [4, 0], [1], [3, 3, 1]):
        states, mask = packed.padded(torch.tensor(texts))
        assert mask.sum(dim=1).tolist() == LENGTHS[texts].tolist()
        assert mask.shape[1] == int(LENGTHS[texts].max())
        assert torch.equal(states[mask], _states()[texts][:, : mask.shape[1]][mask])
        assert bool(states.isfinite().all())


def test_texts_lie_shortest_first_so_that_a_picture_reads_them_in_one_direction() -> None:
    rows = torch.empty(_tokens(), WIDTH)
    _packed(rows)
    expected = [_states()[text, : LENGTHS[text]] for text in (1, 3, 0, 4)]
    assert torch.equal(rows, torch.cat(expected))


def test_a_file_of_states_is_seen_by_nobody_and_needs_no_end(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there yet"
    rows = rows_in_file(1000, torch.empty(0, 256, dtype=torch.bfloat16), folder=folder)
    assert rows.shape == (1000, 256)
    assert rows.dtype == torch.bfloat16
    assert list(folder.iterdir()) == []
    rows.fill_(2)
    assert float(rows.float().sum()) == 2 * 1000 * 256


def test_a_full_disk_is_told_of_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(
        OstrakaError, match=r"cannot hold 3,072 MiB of text states \(No space left on device\); free some room"
    ):
        rows_in_file(3 << 20, torch.empty(0, 256), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_batches_are_kept_while_there_is_room_and_given_away_once() -> None:
    states = torch.zeros(10, 10)  # 400 bytes
    kept = KeptStates(1000)
    for start in (0, 10, 20):
        kept.keep("images", range(start, start + 10), states + start)
    assert torch.equal(kept.take("images", range(10, 20)), states + 10)  # type: ignore[arg-type]
    assert kept.take("images", range(10, 20)) is None
    assert kept.take("images", range(20, 30)) is None  # it found no room
    assert kept.take("texts", range(0, 10)) is None
    kept.keep("texts", range(0, 10), states)  # in the place of what was given away
    assert kept.take("texts", range(0, 10)) is not None
    assert kept.take("images", range(0, 10)) is not None


def test_room_set_aside_is_taken_from_what_came_last() -> None:
    kept = KeptStates(1200)
    for start in (0, 10, 20):
        kept.keep("images", range(start, start + 10), torch.zeros(10, 10))
    kept.make_room(500)
    assert kept.take("images", range(10, 20)) is None
    assert kept.take("images", range(0, 10)) is not None
    kept.keep("images", range(20, 30), torch.zeros(10, 18))  # 720 bytes where 700 are left
    assert kept.take("images", range(20, 30)) is None
