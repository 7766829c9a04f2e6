"""What a run says: lines that a resumed run continues exactly, and one steady line per interval."""

from __future__ import annotations

import json
from pathlib import Path

from trainers.observe import Interval, JsonLines, MetricsFile, duration, line


def _interval(step: int, loss: float = 3.417) -> Interval:
    return Interval(
        step=step,
        steps=30000,
        losses={"loss": loss, "loss/contrast": 1.02, "loss/masked_text": 1.88},
        logged={"temperature": 0.07},
        lr=9.8e-5,
        images_per_s=812.4,
        wait_share=0.031,
        eta_s=22320,
        seconds={"step": 0.1},
    )


def test_lines_beyond_the_checkpoint_and_a_torn_line_are_cut_off_on_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = MetricsFile(tmp_path, resume_step=0)
    for step in (10, 20, 30):
        whole.interval(_interval(step))
    whole.close()
    expected = path.read_bytes()
    with path.open("a") as file:
        file.write('{"step": 40, "na')
    resumed = MetricsFile(tmp_path, resume_step=10)
    assert {json.loads(text)["step"] for text in path.read_text().splitlines()} == {10}
    for step in (20, 30):
        resumed.interval(_interval(step))
    resumed.close()
    assert path.read_bytes() == expected


def test_a_fresh_run_drops_what_a_run_without_a_checkpoint_wrote(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "order.jsonl", resume_step=0)
    lines.write([{"step": 1, "digest": "a"}])
    lines.close()
    JsonLines(tmp_path / "order.jsonl", resume_step=0).close()
    assert (tmp_path / "order.jsonl").read_text() == ""


def test_every_number_is_one_object_with_step_name_and_value(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path, resume_step=0)
    metrics.interval(_interval(5))
    metrics.close()
    rows = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(row.keys() == {"step", "name", "value"} for row in rows)
    assert {row["name"] for row in rows} >= {"loss", "loss/contrast", "lr", "images_per_s", "wait_share", "temperature"}


def test_lines_are_aligned_from_one_interval_to_the_next() -> None:
    early, late = line(_interval(20)), line(_interval(12000, loss=0.5))
    assert early.startswith("step    20/30000  loss 3.417")
    assert "812 img/s" in early
    assert "eta 6h12m" in early
    assert "wait   3 %" in early
    for word in ("contrast", "masked text", "lr", "img/s", "eta"):
        assert early.index(word) == late.index(word)


def test_durations_read_like_a_person_says_them() -> None:
    assert [duration(seconds) for seconds in (41.6, 725, 22320)] == ["42s", "12m05s", "6h12m"]
