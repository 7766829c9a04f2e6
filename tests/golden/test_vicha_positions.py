"""Position tables against the published code."""

from __future__ import annotations

import re
from typing import Any

import pytest

from model.positions import resize_positions, sincos_positions


@pytest.mark.golden("vicha/pos_embed")
def test_learned_tables_are_resized_as_published(case: Any, close: Any) -> None:
    for entry in case.config["interpolations"]:
        key = entry["key"]
        resized = resize_positions(case.inputs[key], entry["new_image"] // entry["patch"])
        close(resized, case.expected[key], key, atol=1e-6)
        if entry["old_grid"] == entry["new_grid"]:
            assert resized is case.inputs[key]


@pytest.mark.golden("vicha/pos_embed")
def test_sine_cosine_tables_are_the_published_ones(case: Any, close: Any) -> None:
    tables = {name: re.fullmatch(r"sincos_dim(\d+)_grid(\d+)", name) for name in case.expected}
    named = {name: match for name, match in tables.items() if match}
    assert named
    for name, match in named.items():
        close(sincos_positions(int(match[1]), int(match[2])), case.expected[name], name, atol=1e-6)
