"""Progress where there is no terminal: steady lines with counts, rate and time left."""

from __future__ import annotations

import io
import logging
import re

import pytest
from rich.console import Console

from jobs import progress as progress_module
from jobs.progress import clock, progress


def test_without_a_terminal_a_step_ends_with_one_line_of_counts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="jobs.progress"), progress("shards", total=3, unit="units") as bar:
        for _ in range(3):
            bar.advance(1, records=10, rejected=1)
    assert len(caplog.messages) == 1
    line = caplog.messages[0]
    assert "3/3 units" in line
    assert "records 30" in line
    assert "rejected 3" in line


def test_a_long_step_speaks_once_per_interval(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, logger="jobs.progress"), progress("embed", total=100, unit="images") as bar:
        for _ in range(100):
            now[0] += 1.0
            bar.advance(1, note="0.1 s")
    assert 9 <= len(caplog.messages) <= 11
    assert "eta" in caplog.messages[0]


def test_work_of_an_earlier_run_counts_as_done_but_not_towards_the_rate(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    with (
        caplog.at_level(logging.INFO, logger="jobs.progress"),
        progress("shards", total=100, unit="units", done=90) as bar,
    ):
        now[0] = 5.0
        bar.advance(10)
    assert "100/100 units" in caplog.messages[-1]
    assert "2.0 units/s" in caplog.messages[-1]


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "4s"), (372, "6m12s"), (11_100, "3h05m"), (float("inf"), "?")])
def test_durations_are_written_as_people_read_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_live_bar_shows_a_total_that_is_only_known_later(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(progress_module, "console", screen)
    with progress("train", total=1, unit="steps") as bar:
        bar.total = 700
        bar.advance(350, note="loss 4.2")
    assert isinstance(screen.file, io.StringIO)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.file.getvalue())
    assert "350/700 steps loss 4.2" in shown
