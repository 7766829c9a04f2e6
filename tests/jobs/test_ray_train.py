"""What a training on Ray is told before its processes are asked for."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

import pytest

from jobs import ray_train
from shards.errors import ConfigError

NEEDS = {"CPU": 1.0, "GPU": 1.0}


def test_a_ray_of_ones_own_without_the_gpus_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_train, "_room", lambda needs: 1)
    ray_train.refuse_missing_room(NEEDS, least=1, may_grow=False)
    with pytest.raises(
        ConfigError, match="room for 1 processes of 1 CPU and 1 GPU, and the run needs at least 2; lower"
    ):
        ray_train.refuse_missing_room(NEEDS, least=2, may_grow=False)


def test_a_cluster_that_may_grow_is_waited_for_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_train, "_room", lambda needs: 0)
    with caplog.at_level(logging.WARNING):
        ray_train.refuse_missing_room(NEEDS, least=1, may_grow=True)
    assert "waiting for nodes that have it" in caplog.text


def rows(*steps: int) -> str:
    return "".join(
        json.dumps({"step": step, "name": name, "value": value}) + "\n"
        for step in steps
        for name, value in (("loss", step / 10), ("images_per_s", 100.0))
    )


def test_the_log_of_rank_0_is_repeated_to_its_end_without_that_of_an_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(rows(20, 40))
    ended = threading.Event()
    waits = iter(
        [
            lambda: None,
            lambda: metrics.write_text(rows(20, 40, 60) + '{"step": 80, "na'),
            lambda: metrics.write_text(rows(20)),  # a resumed run cuts off what it does again
            lambda: metrics.write_text(rows(20, 40)),
            lambda: (metrics.write_text(rows(20, 40, 60, 80)), ended.set()),
        ]
    )
    monkeypatch.setattr(ended, "wait", lambda seconds: (next(waits)(), ended.is_set())[1])
    with caplog.at_level(logging.INFO, logger="jobs.ray_train"):
        ray_train._tell(metrics, ended)
    assert [message.split("  ")[0] for message in caplog.messages] == ["step 60", "step 40", "step 80"]


def test_a_run_that_has_logged_nothing_yet_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()
    ended.set()
    with caplog.at_level(logging.INFO, logger="jobs.ray_train"):
        ray_train._tell(tmp_path / "metrics.jsonl", ended)
    assert caplog.messages == []
