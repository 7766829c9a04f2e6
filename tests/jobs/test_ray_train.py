"""What a training on Ray is told before its processes are asked for."""

from __future__ import annotations

import logging

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
