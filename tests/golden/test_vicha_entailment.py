"""Visual entailment against the published code, with and without concepts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.families.vicha.batch import ClassesBatch
from model.families.vicha.classes import VichaClasses
from model.family import Rank

pytestmark = [
    pytest.mark.golden("vicha/entailment"),
    pytest.mark.parametrize("concepts", [True, False], ids=["concepts", "plain"]),
]


@pytest.fixture
def classes(case: Any) -> tuple[str, ...]:
    labels: dict[str, int] = case.config["labels"]
    return tuple(sorted(labels, key=labels.__getitem__))


@pytest.fixture
def family(case: Any, concepts: bool, classes: tuple[str, ...], tuned_family: Any) -> VichaClasses:
    head = {"kind": "classes", "classes": classes, "distil": {"momentum": case.config["momentum"]}}
    family: VichaClasses = tuned_family(case, head, concepts=concepts)
    return family


@pytest.fixture
def batch(case: Any, concepts: bool, concepts_of: Any) -> ClassesBatch:
    inputs = case.inputs
    return ClassesBatch(
        keys=tuple(map(str, range(len(inputs["targets"])))),
        pixels=inputs["image"],
        **(concepts_of(inputs, "kw") if concepts else {}),
        text_ids=inputs["text_input_ids"],
        text_mask=inputs["text_attention_mask"].bool(),
        labels=inputs["targets"],
    )


def _prefix(concepts: bool) -> str:
    return "" if concepts else "noconcept."


def test_logits_and_losses_equal_the_reference(
    case: Any, concepts: bool, family: VichaClasses, batch: ClassesBatch, close: Any
) -> None:
    start = {name: value.clone() for name, value in family.state_dict().items()}
    prefix = _prefix(concepts)
    for alpha in {0.0, round(case.config["alpha"], 6)}:
        family.load_state_dict(start)
        step = family.step(batch, soften=alpha)
        close(step.logits, case.expected[f"{prefix}logits"], "logits")
        close(step.losses.total, case.expected[f"{prefix}alpha{alpha}.loss"], f"alpha{alpha}.loss", atol=1e-6)
        if alpha > 0:
            assert step.twin_logits is not None
            close(step.twin_logits, case.expected[f"{prefix}logits_m"], "logits_m")
        else:
            close(step.losses.total, case.expected[f"{prefix}nodistill.loss"], "nodistill.loss", atol=1e-6)


def test_gradients_and_the_twin_equal_the_reference(
    case: Any, family: VichaClasses, batch: ClassesBatch, same_gradients: Any, same_state: Any
) -> None:
    family.step(batch, soften=case.config["alpha"]).losses.total.backward()
    variant = "noconcept" if family.config.concepts is None else "concept"
    same_gradients(family, case.json(f"grad_norms.{variant}.json"))
    same_state(case, family)


def test_ranking_in_evaluation_follows_the_reference_logits(
    case: Any, concepts: bool, family: VichaClasses, batch: ClassesBatch, classes: tuple[str, ...]
) -> None:
    family.eval()
    found = family.predict(batch, Rank(candidates=classes, keep=len(classes)))
    expected = case.expected[f"{_prefix(concepts)}logits"].softmax(dim=1).sort(dim=1, descending=True)
    assert torch.equal(found.places, expected.indices)
    torch.testing.assert_close(found.scores, expected.values, rtol=1e-4, atol=1e-5)
