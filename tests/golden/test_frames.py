"""Which frames the published loaders take from a clip."""

from __future__ import annotations

from typing import Any

import pytest

from trainers.frames import intervals, sample_frames


@pytest.mark.golden("epalm/video_frame_sampling")
def test_intervals_and_middles_are_those_of_the_reference(case: Any) -> None:
    rows = case.json("expected.json")
    assert rows
    for row in rows:
        length, count = row["video_length"], row["num_frames"]
        parts = intervals(length, count)
        assert [first for first, _ in parts] == row["interval_starts"]
        assert [last for _, last in parts] == row["interval_last_frames"]
        assert sample_frames(length, count, choice="middle") == row["middle"]
