"""The comparison of steps compares the same losses, and counts less work on our side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.step_sides import (
    as_published,
    compare_losses,
    random_pairs,
    set_dropout,
    shape_config,
    straight_twin_of,
)
from benchmarks.step_speed import by_turns, measure, measure_option
from model.families.vicha.model import Vicha


@pytest.mark.parametrize("parts", [{}, {"concepts": None}, {"masked_image": {"mode": "cross_modal"}}])
def test_both_steps_have_equal_losses_on_equal_weights(parts: dict[str, Any]) -> None:
    torch.manual_seed(0)
    family = Vicha(shape_config("tiny", **parts)).train()
    straight = straight_twin_of(family)
    for model in (family, straight):
        set_dropout(model, 0.0)
    pairs = random_pairs(family.config, 4, words=12, concepts=7, seed=2)
    differences = compare_losses(family, straight, pairs)
    assert max(differences.values()) < 1e-5
    with torch.no_grad():
        straight.vision_proj.weight.mul_(-1.0)
    assert compare_losses(family, straight, pairs)["contrast"] > 1e-3


def test_inputs_under_published_names_label_the_hidden_words_alone() -> None:
    family = Vicha(shape_config("tiny"))
    pairs = random_pairs(family.config, 3, words=12, concepts=7, seed=2)
    published = as_published(family, pairs)
    hidden = published.mlm_labels >= 0
    assert hidden.any()
    assert not hidden[:, 0].any()
    assert torch.equal(published.mlm_input_ids != pairs.text_ids, hidden)
    assert torch.equal(published.mlm_labels[hidden], pairs.text_ids[hidden])


def test_a_measurement_says_losses_operations_and_both_rates() -> None:
    found = measure("tiny", batch=4, rounds=1, dropout=0.1, words=12, concepts=7)
    assert found["flops_straight_to_ours"] > 1
    assert found["ours_to_straight"]["median"] > 0
    assert set(found["cpu_s"]) == {"ours", "straight"}


def test_an_option_is_measured_beside_the_plain_step() -> None:
    pairs = random_pairs(shape_config("tiny"), 4, words=12, concepts=7, seed=2)
    found = measure_option("checkpoint", "tiny", pairs, rounds=1, dropout=0.1)
    assert found["plain_to_it"]["median"] > 0
    assert set(found["most_gib"]) == {"plain", "checkpoint"}


def test_sides_take_turns_after_one_uncounted_run_each() -> None:
    ran: list[str] = []

    def side(name: str) -> Callable[[], object]:
        return lambda: ran.append(name)

    seconds, rates = by_turns({"a": side("a"), "b": side("b")}, rounds=2)
    assert ran == ["a", "b", "b", "a", "a", "b"]
    assert [len(each) for each in seconds.values()] == [2, 2]
    assert len(rates) == 6
