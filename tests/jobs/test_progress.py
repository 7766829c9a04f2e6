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


def test_what_an_earlier_run_finished_is_told_as_done_and_not_as_a_rate_of_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        caplog.at_level(logging.INFO, logger="jobs.progress"),
        progress("embeddings", total=160, unit="images", done=160),
    ):
        pass
    assert "160/160 images   done before" in caplog.messages[-1]
    assert "images/s" not in caplog.messages[-1]


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


def shown_on(width: int, monkeypatch: pytest.MonkeyPatch) -> Console:
    screen = Console(file=io.StringIO(), force_terminal=True, width=width)
    monkeypatch.setattr(progress_module, "console", screen)
    return screen


def plain(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.file.getvalue())


def test_on_a_narrow_terminal_the_numbers_are_whole_and_the_bar_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = shown_on(60, monkeypatch)
    with progress("shards", total=1024, unit="shards") as bar:
        bar.advance(1024, records=830, rejected=0)
    assert "1024/1024 shards records 830  rejected 0" in plain(screen)
    assert "…" not in plain(screen)


def test_a_path_in_the_log_of_a_terminal_is_not_broken_into_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = shown_on(40, monkeypatch)
    path = "/data/" + "shards-of-a-long-name/" * 4
    progress_module.set_up_logging()
    try:
        logging.getLogger("jobs.test").error("error: %s is [missing]", path)
    finally:
        logging.basicConfig(force=True)
    assert f"error: {path} is [missing]" in plain(screen)
