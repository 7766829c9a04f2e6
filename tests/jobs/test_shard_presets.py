"""The presets of `shards`: what their first lines tell a person to type is what they take."""

from __future__ import annotations

import shlex

import pytest

from jobs.config import PRESETS, load_config, preset_names
from jobs.verbs.shards import Config


@pytest.mark.parametrize("preset", preset_names("shards"))
def test_a_preset_takes_the_command_that_it_is_documented_with(preset: str) -> None:
    lines = (PRESETS / "shards" / f"{preset}.yaml").read_text().splitlines()
    (command,) = [line.removeprefix("# ") for line in lines if line.startswith("# python -m jobs shards ")]
    _, _, _, _, name, *overrides = shlex.split(command)
    assert name == preset
    assert load_config(Config, name, overrides, verb="shards").conversion().target().dataset
