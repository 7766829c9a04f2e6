"""The benchmark of retrieval's memory finds the same scores whatever room states have."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from benchmarks.retrieval_memory import main


def _measured(settings: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setattr(sys, "argv", ["retrieval_memory", "--child", "--pictures=20", "--captions=2", *settings])
    main()
    rank, measured = json.loads(capsys.readouterr().out)
    assert rank == 0
    return measured


def test_the_room_changes_no_score_and_every_stage_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ample = _measured(["batch_size=6"], monkeypatch, capsys)
    tight = _measured(["batch_size=6", "state_bytes=0"], monkeypatch, capsys)
    assert ample["scores"] == tight["scores"]
    assert list(tight["own_mib"]) == ["images", "texts", "text states", "match", "after"]
    assert _measured(["batch_size=6", "k_test=2"], monkeypatch, capsys)["scores"] != ample["scores"]
