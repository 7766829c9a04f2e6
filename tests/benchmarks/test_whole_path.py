"""The benchmark of the whole path at its smallest size."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from benchmarks.whole_path import main

pytest.importorskip("open_clip")

STEPS = ["raw", "shards", "verify", "stream", "decode", "concepts", "train", "evaluate"]


def test_every_step_stands_beside_its_floor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scale", "0.01", "--rounds", "1", "--folder", str(tmp_path), "batch_size=8"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert list(figures["steps"]) == STEPS
    for step in figures["steps"].values():
        for name in ("ours_records_per_s", "floor_records_per_s", "ours_to_floor"):
            assert 0 < step[name]["min"] <= step[name]["median"] <= step[name]["max"]
    if importlib.util.find_spec("webdataset") is not None:
        assert figures["steps"]["stream"]["ours_to_webdataset"]["median"] > 0
    assert not list(tmp_path.iterdir())
