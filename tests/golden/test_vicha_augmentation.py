"""RandAugment's operations against the published ones, each alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trainers.rand_augment import NAMES, Operation, augment, strength

BORDER = 2  # pixels; how a library treats the outermost ones is its own


@pytest.mark.golden("vicha/randaugment")
def test_every_operation_at_the_level_of_the_case(case: Any) -> None:
    level = case.config["M"]
    assert set(case.config["ops"]) == set(NAMES)
    for name, expected in case.expected.items():
        operation, _, variant = name.partition(".")
        picture = case.inputs["image_zero_min" if variant == "zero_min" else "image"].permute(2, 0, 1)[None]
        sign = -1.0 if variant == "neg" else 1.0
        drawn = Operation(name=operation, argument=sign * strength(operation, level))
        found = augment(picture, [(drawn,)], faithful=True)[0].permute(1, 2, 0)
        if variant in ("neg", "pos"):
            inner = (found.int() - expected.int()).abs()[BORDER:-BORDER, BORDER:-BORDER].float()
            assert inner.mean() <= 1.0, name
        else:
            assert torch.equal(found, expected), name


@pytest.mark.golden("vicha/randaugment")
def test_the_arguments_at_the_level_of_the_case(case: Any) -> None:
    level = case.config["M"]
    stated = next(value for key, value in case.config.items() if key.startswith("op_arguments"))
    for name, arguments in stated.items():
        operation, _, variant = name.partition(".")
        if arguments:
            sign = -1.0 if variant == "neg" else 1.0
            assert sign * strength(operation, level) == pytest.approx(arguments[0]), name
