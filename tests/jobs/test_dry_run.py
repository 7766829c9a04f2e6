"""A dry run shows the first records as they would be stored, and ends with the plan and a guess at bytes and time."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jobs.cli import main
from jobs.quantities import duration_text, size_text
from shards.reader import open_dataset


@pytest.fixture
def raw(tmp_path: Path) -> list[str]:
    """A table of 30 pictures, of which number 20 is missing."""
    from PIL import Image

    lines = ["file,text"]
    for number in range(30):
        lines.append(f"{number:02}.png,Picture “{number}”")
        if number != 20:
            Image.new("RGB", (64, 48), (number, 9, 9)).save(tmp_path / f"{number:02}.png")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    return ["shards", "source.kind=table", f"source.annotations={tmp_path / 't.csv'}", "source.columns.image=file",
            "source.columns.caption=text", "records_per_shard=10", f"output={tmp_path / 'out'}"]  # fmt: skip


def test_the_first_records_are_shown_exactly_as_they_are_stored_later(
    raw: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*raw, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    shown = [json.loads(text) for text in re.findall(r"^  \{\n.*?^  \}$", out, re.MULTILINE | re.DOTALL)]
    assert main(raw) == 0
    records = list(open_dataset(tmp_path / "out").records())[:2]
    assert [header["key"] for header in shown] == [record.key for record in records]
    assert [header["annotations"][0]["text"] for header in shown] == ["Picture “0”", "Picture “1”"]
    size = (tmp_path / "00.png").stat().st_size
    assert f"  png 64x48, {size_text(size)}\n" in out


def test_the_last_line_is_the_plan_with_bytes_and_time_said_to_be_estimates(
    raw: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*raw, "--dry-run"]) == 0
    *before, plan = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"table-all: 30 raw items in 3 units \(3 left\), about [\d.]+ KiB and below 1 s on 1 worker, "
        r"estimated from 30 items -> .*",
        plan,
    )
    assert "of 30 items looked at, 1 would be rejected as missing_media (e.g. 20.png: " in before[-1]


def test_durations_and_sizes_are_read_at_a_glance() -> None:
    assert [duration_text(s) for s in (0.2, 40, 600, 9000, 400000)] == [
        "below 1 s",
        "40 s",
        "10 min",
        "2.5 h",
        "4.6 days",
    ]
    assert [size_text(s) for s in (12, 2048, 3 << 30)] == ["12 B", "2.0 KiB", "3.0 GiB"]
