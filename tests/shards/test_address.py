from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.address import example_rng, example_seed, keyed_bits

unhurried = settings(deadline=None)  # a busy machine is no failure

parts = st.lists(st.integers() | st.text(alphabet="ab,\"[]'1 ", max_size=4), max_size=4)


@unhurried
@given(parts, parts)
def test_only_equal_addresses_share_their_bits(one: list[int | str], other: list[int | str]) -> None:
    assert (keyed_bits(*one) == keyed_bits(*other)) == (one == other)


def test_seed_epoch_and_key_each_give_another_generator() -> None:
    draws = {
        example_rng(seed, epoch, key).integers(2**63)
        for seed in range(5)
        for epoch in range(5)
        for key in ("a#0", "a#1", "b#0", "1", "11")
    }
    assert len(draws) == 125


def test_a_key_draws_the_same_in_another_process_whatever_its_hash_seed() -> None:
    code = "from shards.address import example_seed; print(example_seed(7, 3, 'coco-train-1#2'))"
    root = Path(__file__).resolve().parents[2]
    said = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=root, env={"PYTHONHASHSEED": hashing}, capture_output=True, check=True
        ).stdout
        for hashing in ("1", "2")
    }
    assert said == {f"{example_seed(7, 3, 'coco-train-1#2')}\n".encode()}


def test_neighbouring_addresses_draw_like_independent_ones() -> None:
    first = np.array([example_rng(0, 0, f"key-{number}").random() for number in range(2000)])
    # Uniform mean, and no correlation from one key to the next: both within four standard errors.
    assert abs(first.mean() - 0.5) < 4 * (1 / 12 / 2000) ** 0.5
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 4 / 2000**0.5
