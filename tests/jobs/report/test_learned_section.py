"""Charts of a dataset's columns: the filter's cut, the pools, the groups of near duplicates."""

from __future__ import annotations

import re
from pathlib import Path

from concepts.vocabulary import Vocabulary
from jobs.report.histograms import Split, draw_histogram
from jobs.report.learned import LearnedColumns
from jobs.report.learned_section import learned_section
from jobs.report.room import Room
from tests.jobs.report.columns import NASTY, captioned, write_column


def test_every_column_has_its_part_and_what_it_holds_is_escaped(tmp_path: Path) -> None:
    dataset = captioned(tmp_path / "d", concepts=[["dog"], [NASTY], ["dog"]])
    keys = dataset.index(0).keys
    words = Vocabulary(phrases=("dog", NASTY), counts=(7, 2))
    dataset.storage.create("sidecars/concepts-0a1b2c3d/vocabulary.json", words.to_bytes())
    write_column(dataset, "similarity", {"similarity": [[0.1, 0.2], [0.3, 0.4], [0.5, None]]})
    kept = {"keep": [[False, False], [True, True], [True, False]]}
    rule = {"rule": {"by": "similarity"}, "outcome": {"cut": 0.3}}
    write_column(dataset, "mine", kept, rule)
    same = {"keep": [[True] * 2, [False] * 2, [True] * 2], "duplicate_of": [None, keys[0], None]}
    write_column(dataset, "unique", same, {"rule": {"by": "duplicates", "likeness": 0.9}, "outcome": {"groups": 1}})
    write_column(dataset, "pools", {"objects": [[], [], []]})
    dataset.storage.create("sidecars/pools-0a1b2c3d/object.txt", f"{NASTY}\n".encode())
    room = Room(left=1_000_000)
    shown = learned_section(dataset, LearnedColumns(dataset, concepts="concepts"), room=room)
    assert shown is not None
    assert "<script>" not in shown
    for told in (
        "Vocabulary of",
        "best concept",
        "kept by mine-0a1b2c3d, from 0.30 on: 3 of 5",
        "1 objects",
        "1 groups of",
    ):
        assert told in shown
    assert f'alt="{keys[1]}"' in shown  # the picture of the near duplicate
    assert room.left < 1_000_000


def test_a_dataset_without_columns_has_no_such_part(tmp_path: Path) -> None:
    dataset = captioned(tmp_path / "d", concepts=[["dog"]])
    columns = LearnedColumns(dataset, concepts="nothing")
    assert learned_section(dataset, columns, room=Room(left=0)) is None


def test_what_is_kept_stands_in_the_bars_of_all_at_its_cut() -> None:
    values = [0.02 * number for number in range(50)]
    split = Split(marked=tuple(value >= 0.5 for value in values), name="kept", cut=0.5)
    shown = draw_histogram("Similarity", values, unit="", split=split)
    heights = [float(text) for text in re.findall(r'height="([\d.]+)" class="bin marked"', shown)]
    whole = [float(text) for text in re.findall(r'height="([\d.]+)" class="bin rest"', shown)]
    assert len(heights) < len(whole)
    assert abs(sum(heights) / sum(whole) - 0.5) < 0.05
    assert 'class="cut"' in shown
    assert "25 of 50" in shown
    assert 'class="cut"' not in draw_histogram("Similarity", values, unit="")
