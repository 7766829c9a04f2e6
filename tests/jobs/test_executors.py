"""Choosing where units run, and running them in this process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from jobs.executors import ExecutorConfig, InlineExecutor, executor_for
from shards.config import validate
from shards.errors import ConfigError


def _counting_factory(calls: list[str]) -> Callable[[int], int]:
    calls.append("factory")
    return lambda unit: unit + 1


def test_inline_makes_the_work_once_and_keeps_the_order() -> None:
    calls: list[str] = []
    outcomes = list(InlineExecutor().run(partial(_counting_factory, calls), [3, 1, 2]))
    assert [(outcome.unit, outcome.result) for outcome in outcomes] == [(3, 4), (1, 2), (2, 3)]
    assert calls == ["factory"]
    assert list(InlineExecutor().run(partial(_counting_factory, calls), [])) == []
    assert calls == ["factory"]


def test_inline_refuses_several_workers_and_is_the_default() -> None:
    assert isinstance(executor_for(validate(ExecutorConfig, {})), InlineExecutor)
    assert isinstance(executor_for(validate(ExecutorConfig, {"workers": 1})), InlineExecutor)
    with pytest.raises(ConfigError, match="say executor=ray"):
        validate(ExecutorConfig, {"workers": 4})
