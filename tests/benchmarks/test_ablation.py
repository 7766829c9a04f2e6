"""The ablation at its smallest size."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.ablation import main
from benchmarks.world import make_world

pytest.importorskip("open_clip")


def test_all_variants_are_scored_and_a_second_call_runs_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path, scale=0.01)
    command = [f"--{split}={path}" for split, path in world.datasets.items()]
    command += [f"--output={tmp_path / 'runs'}", "--steps=2", "--seeds=3", "--set", "batch_size=8"]
    command += ["--variants", "without_hierarchy", "three_objectives"]
    assert main(command) == 0
    first = json.loads(capfd.readouterr().out)
    assert list(first["variants"]) == ["all_objectives", "without_hierarchy", "three_objectives"]
    assert list(first["differences"]) == ["without_hierarchy", "three_objectives"]
    for variant in first["variants"]:
        (run,) = first["variants"][variant]["seeds"].values()
        assert run["steps"] == 2
        assert run["seconds"] >= 0
        assert (
            run["cosine"].keys() == run["reranked"].keys() == first["differences"]["three_objectives"]["cosine"].keys()
        )
    families = {
        path.parent.name.partition("-")[0]: yaml.safe_load(path.read_text(encoding="utf-8"))["family"]
        for path in (tmp_path / "runs").glob("*/config.yaml")
    }
    for part in ("hierarchy", "masked_image", "concepts"):
        assert families["all_objectives"][part] is not None
        assert families["three_objectives"][part] is None
        assert (families["without_hierarchy"][part] is None) == (part == "hierarchy")

    def refuse(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("nothing is left to run")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert main(command) == 0
    assert json.loads(capfd.readouterr().out) == first
