"""Every training preset of vicha is a config that its family and its task accept, once the datasets are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.verbs.train import Config
from model.families import load_family
from trainers.tasks import load_task

PRESETS = Path(__file__).resolve().parents[2] / "jobs" / "presets" / "train"


@pytest.fixture(params=sorted(path.name for path in PRESETS.glob("vicha*.yaml")))
def preset(request: pytest.FixtureRequest) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((PRESETS / request.param).read_text(encoding="utf-8"))
    return values


def test_a_preset_lacks_nothing_but_paths(preset: dict[str, Any]) -> None:
    named = {name: stream | {"dataset": "data"} for name, stream in preset["streams"].items()}
    config = Config.model_validate(preset | {"streams": named, "output": "run"})
    family = load_family(config.family).Config.model_validate(config.family)
    task = load_task(config.task)
    served = {None: "Paired", "assign": "Paired", "answers": "Generate", "classes": "Classify", "compare": "Compare"}
    assert task.emits.__name__ == served[family.head.kind if family.head else None]
    if "classes" in config.task or (family.head and family.head.kind == "classes"):
        assert family.head.classes == task.classes  # type: ignore[attr-defined]
